"""Finding adapters and loading them by name. Nothing in it needs torch until a model is loaded."""
