"""Generalization: a vector's effects on other styles of text, and its side effects there."""
