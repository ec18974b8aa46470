"""What ``python -m workers.extractors.train`` is made of: images, edits, losses, schedule."""
