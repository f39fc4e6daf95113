"""Hosts: processes that hold wide fixtures and fork tests."""
