"""Everything that touches pixels, features or the index."""
