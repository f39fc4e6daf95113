"""Hosts: hold wide fixtures and fork tests."""
