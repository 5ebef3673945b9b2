"""Finding adapters and loading them by name. Nothing here needs torch until a model is loaded."""
