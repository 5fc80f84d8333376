"""Calibration: the layer and the dose at which a vector works, and how that is found."""
