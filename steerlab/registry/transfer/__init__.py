"""Vectors and whole stores as files: export, import, backup, restore."""
