"""A collection as it is stored and as a worker holds it: segments, journal, manifests, generations."""
