"""Asking tools, libraries and the kernel about GPUs, without hanging or believing anything."""
