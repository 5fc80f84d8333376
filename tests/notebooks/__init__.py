"""Notebooks that CI executes."""
