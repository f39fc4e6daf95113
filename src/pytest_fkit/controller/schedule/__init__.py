"""Which worker runs which test next: decisions on values, without a process."""
