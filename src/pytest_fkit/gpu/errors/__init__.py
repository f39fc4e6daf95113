"""Which failures are a GPU's, and of which kind."""
