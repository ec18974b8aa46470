"""What ``python -m workers.extractors.training.train`` is made of: images, edits, losses, schedule."""
