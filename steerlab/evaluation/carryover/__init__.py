"""Whether a vector carries over to other styles of text, and what it costs there."""
