"""One file, or a few, for each vendor: how its GPUs are found, counted and tried out."""
