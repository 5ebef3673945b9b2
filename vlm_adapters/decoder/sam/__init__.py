"""Segment Anything: the model, its prompts, and the refinement of coarse masks."""
