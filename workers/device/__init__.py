"""The threads that run the extractor, and what they batch."""
