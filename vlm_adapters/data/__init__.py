"""Data sets: images, sentences, and phrases with masks."""
