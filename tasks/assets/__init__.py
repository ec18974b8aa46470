"""What is known of one asset, in Redis and in S3: its current state, its records, its removal."""
