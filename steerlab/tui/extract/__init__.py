"""The extraction screen: from contrast prompts to a stored vector."""
