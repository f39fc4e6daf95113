"""What runs in forked processes: keeper, host and child."""
