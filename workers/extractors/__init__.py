"""Networks from an image to an L2-normalised feature, behind one small protocol."""
