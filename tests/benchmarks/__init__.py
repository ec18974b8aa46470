"""Benchmarks: ratios between two ways of doing one thing, measured in one run. Nothing here is asserted."""
