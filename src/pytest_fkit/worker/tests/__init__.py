"""Which tests a worker runs, in which process, and in which order."""
