"""Evaluation: measure what a vector does, how sure that is, and what it costs.

metrics         numbers for texts, next tokens and likelihoods
statistics      intervals, slopes, and scores among controls; `controls` makes the controls
calibration     the layer and the dose at which a vector works
generalization  effects on other styles of text, and side effects there
inspection      what a direction means, and how two vectors differ

Everything takes and returns values; `steerlab.plots` draws them and `steerlab.report` puts them
on a page.
"""
