"""Where a store and a model meet.

`Lab` holds both and compares texts. `batches` writes rows of prompt, seed and setting, `sweeps`
runs a plan and stores each batch, `recipes` and `port` run stored recipes again, `starter` makes
the starter vectors, and `workers` divides a sweep among processes.
"""
