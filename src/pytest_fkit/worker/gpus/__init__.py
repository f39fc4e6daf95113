"""The GPUs of a worker and what its tests need of them."""
