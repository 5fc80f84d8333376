"""Changing the residual stream while a model runs (torch).

`hooks` has `steering(...)`, `injection` what it adds; `active` is one steering that was entered,
`adding` its hook on a block. `positions` places every forward pass: `layout` finds the positions
of its tokens, `sequence` what it continues, `generate_call` what the passes don't show, and
`forward_pass` answers. `compiled` is about torch.compile, `interrupts` about Ctrl-C. `runtime` runs
batches whose rows are steered one by one.
"""
