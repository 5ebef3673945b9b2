"""Data sets: pictures, sentences, and phrases with masks."""
