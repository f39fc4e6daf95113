"""The journal of a run, and what is derived from it."""
