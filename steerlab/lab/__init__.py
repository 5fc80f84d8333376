"""Where a store and a model meet: comparisons, sweeps, recipes run on other models."""
