"""Masks without training: which heads look at things, and what their maps show."""
