"""What changes or checks a whole collection: building, compaction, rollback, repair, verification."""
