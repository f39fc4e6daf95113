"""What keeper, hosts and children have in common."""
