"""What frozen models say of a data set, computed once and kept on disk."""
