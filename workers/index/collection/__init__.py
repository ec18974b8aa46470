"""Collections, as they are stored and as a worker has them open: segments, journal, manifests, generations."""
