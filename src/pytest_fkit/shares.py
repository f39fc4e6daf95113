"""Names of processes that tests share; the first word says how long the process lives."""

from __future__ import annotations

from .own import own_builtins

own_builtins(globals())

SESSION = "session"
"""The process that runs all tests."""

SPAWNED = "spawn:"
"""Begins the name of a process that is a fresh interpreter; the name it would have otherwise,
or the node id of a test that has one of its own, follows."""

SPAWNED_SESSION = f"{SPAWNED}{SESSION}"
"""The fresh interpreter that runs all tests, so collects everything."""

APART = f"{SPAWNED}apart:"
"""Begins the name of a fresh interpreter beside which the worker has no other process."""


def ends_before(share: str, next_share: str) -> bool:
    """Whether the process is over when the next test does not share it."""
    scoped = share.startswith(("class:", "module:", SPAWNED)) and share != SPAWNED_SESSION
    return scoped and share != next_share
