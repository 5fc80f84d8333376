"""Inspection: what a direction means, and how two vectors differ."""
