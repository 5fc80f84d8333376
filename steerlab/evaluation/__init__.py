"""Evaluation: what the texts of a sweep are worth, and what a claim about them needs."""
