"""The features of a data set, computed once by a frozen backbone and kept on disk."""
