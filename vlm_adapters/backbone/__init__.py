"""The protocol that every adapter speaks, and the data that cross it."""
