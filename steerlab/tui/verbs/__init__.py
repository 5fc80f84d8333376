"""Verbs of the command line as forms: a screen for any of them, and its process."""
