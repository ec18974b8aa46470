"""What workers measure and say of themselves, kept in Redis, and how a person or a program reads it."""
