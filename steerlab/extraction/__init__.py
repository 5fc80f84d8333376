"""From contrast prompts to directions: methods as pure functions, and the runner of a recipe.

Needs numpy only. What it reads comes from a `Reader`, which a LanguageModel is.
"""
