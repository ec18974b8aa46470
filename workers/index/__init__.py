"""The index of features: codes, collections of them, and their maintenance."""
