"""Reports on adapters as plain values, for `adapters info`, `adapters probe`, `adapters bench` and programs."""
