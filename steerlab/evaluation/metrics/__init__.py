"""Metrics of texts, next tokens and likelihoods, under steering."""
