"""From an image and a sentence to a mask for every phrase."""
