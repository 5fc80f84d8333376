"""At which layer and how strongly a vector works."""
