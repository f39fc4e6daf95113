"""One object per vendor says all that is particular to its GPUs, see :mod:`.vendor`."""
