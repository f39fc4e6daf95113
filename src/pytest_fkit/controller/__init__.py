"""What runs in the process that the user started."""
