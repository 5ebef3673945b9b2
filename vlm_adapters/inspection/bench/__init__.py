"""What the library costs, in time and memory, against a plain pass of the same model: `adapters bench`.

One module per part; `measure` times the variants of all of them in turn.
"""
