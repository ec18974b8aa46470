"""``aii buckets``: makes and checks the buckets of a store, with their expiry, versions, notifications and policies."""
