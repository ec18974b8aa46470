"""Benchmarks: ratios between two implementations of one thing, measured in one run. Nothing here is asserted."""
