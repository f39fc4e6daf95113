"""Tests that are repeated, by ``--fkit-repeat``."""
