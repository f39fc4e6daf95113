"""How GPUs do while tests run: probes, memory, Xids."""
