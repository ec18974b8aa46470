"""The workers of all shards search together."""
