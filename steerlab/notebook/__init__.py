"""Notebooks: values as pages and figures, texts side by side, and a widget to steer with.

`pages` and `figures` are what values show in a notebook, `compare` puts texts side by side, and
`widget` (extra `notebook`) generates as a slider moves. Nothing here imports IPython.
"""
