"""Evaluation: what is known of a vector once it was measured, and what a claim about it needs.

metrics       numbers for texts, next tokens and likelihoods
statistics    intervals, slopes and scores against controls; `controls` makes these
calibration   at which layer and how strongly a vector works
carryover     whether it does so in other styles of text, and what it costs there
inspection    what a direction is, and how two differ
pictures      all of that as figures and tables
report        all of that on one page
"""
