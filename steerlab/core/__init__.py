"""Plain values and their arithmetic, numpy only: vectors, recipes, expressions, runs, sweeps."""
