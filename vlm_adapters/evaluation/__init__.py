"""How well masks agree with the truth."""
