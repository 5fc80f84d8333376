"""What a direction is, and how two of them differ."""
