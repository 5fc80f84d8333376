"""The same vector on the same prompts in steerlab and in other programs: are the numbers equal?

`conform` compares; `targets` names the programs, each of which has a module that runs it with a
file that steerlab wrote for it. `plain` and `gguf_model` give them the model.
"""

from steerlab.models.waiting import limit_spinning

limit_spinning()
