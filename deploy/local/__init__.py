"""The local stack of ``aii up``: Redis, an S3 server, workers and Flower on this machine."""
