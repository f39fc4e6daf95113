"""Plugins and tools that the keeper, hosts and children share."""
