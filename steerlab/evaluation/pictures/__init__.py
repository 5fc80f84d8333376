"""Measurements as pictures and tables."""
