"""From contrast prompts to directions. Needs numpy only.

`methods` are pure functions on arrays, `runner` runs a recipe on a model, and `readings` has the
`Reader` protocol that it reads a model by; a LanguageModel is one.
"""
