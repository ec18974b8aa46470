"""Training ``compact`` (``aii extractor train``): images, edits, losses, schedule, the loop."""
