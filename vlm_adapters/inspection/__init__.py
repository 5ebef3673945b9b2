"""What an adapter is and does, told in plain values: for `adapters info`, `adapters probe` and programs.

`entry` tells of an adapter that is not loaded and imports no torch; `model` and `interface` tell of a loaded one.
"""
