"""Changing the residual stream while a model runs (torch).

`hooks` has `steering(...)` and `Injection`, `positions` tells where in a sequence a forward pass
is, and `runtime` runs batches whose rows are steered one by one.
"""
