"""The record of all that happens in a run, and what is derived from it."""
