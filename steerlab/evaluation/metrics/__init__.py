"""Metrics of texts, next tokens and likelihoods, under steering."""

from steerlab.models.waiting import let_threads_sleep

let_threads_sleep()
