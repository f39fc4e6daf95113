"""Run every pytest test in a process of its own."""

__version__ = "1.0.0.dev0"
