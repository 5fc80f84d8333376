"""Metrics of texts, next tokens and likelihoods, under steering."""

from steerlab.models.waiting import limit_spinning

limit_spinning()
