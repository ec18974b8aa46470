"""Flower, configured for this system."""
