"""The same vector on the same prompts in steerlab and in other programs: are the numbers equal?

`conform` compares; `targets` names the programs, each of which has a function that runs it with a
file that steerlab wrote for it. `transformers_model` has those that need no other program.
"""

from steerlab.models.waiting import limit_spinning

limit_spinning()
