"""What changes a collection as a whole: building, compaction, rollback, repair, verification."""
