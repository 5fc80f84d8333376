"""Whether a vector generalizes to other styles of text, and what it costs there."""
