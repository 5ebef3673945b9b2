"""Learning without the backbone in memory: caches of what decoders read, and the loop that trains them."""
