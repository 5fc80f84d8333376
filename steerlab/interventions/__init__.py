"""Changing the residual stream while a model runs (torch).

`hooks` has `steering(...)`, `injection` what it adds; `active` is one steering that was entered.
It reaches the blocks by hooks (`hooked`, and `adding` for what one block gets) or, under
torch.compile, by buffers (`in_graph`). `positions` places every forward pass:
`layout` finds the positions of its tokens, `sequence` what it continues, `generate_call` what the
passes don't show, and `forward_pass` answers. `applied` measures what was changed, on request.
`interrupts` is about Ctrl-C, and `runtime` runs batches whose rows are steered one by one.
"""

from steerlab.models.waiting import limit_spinning

limit_spinning()
