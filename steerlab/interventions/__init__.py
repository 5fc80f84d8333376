"""What changes the residual stream while a model runs (torch): hooks and their positions."""
