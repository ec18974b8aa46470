"""What is broken on purpose, each in a function that takes a bench and a size, and says what it came to."""
