"""What a worker says of itself: health, presence, figures, logs."""
