"""The producer's commands; what they work with is imported when they run, so that help and completion are fast."""
