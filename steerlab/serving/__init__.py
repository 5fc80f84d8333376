"""A model served to many clients, each request steered by stored vectors of its own choice.

The server speaks OpenAI's API and runs on transformers; requests join and leave a running batch.
"""

from steerlab.models.waiting import limit_spinning

limit_spinning()
