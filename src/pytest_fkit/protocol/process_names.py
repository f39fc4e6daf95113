"""Names of processes that tests share; the first word says how long the process lives."""

from __future__ import annotations

from ..own import own_builtins

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


_CONNECTED = "connected:"


def connected_share(nodeid: str, last: int) -> str:
    """The name for tests that plugins connect, which need not follow each other.

    :param nodeid: of the first.
    :param last: position of the last.
    """
    return f"{_CONNECTED}{last}:{nodeid}"


def _last_of_connected(share: str) -> int | None:
    name = share[len(SPAWNED) :] if share.startswith(SPAWNED) else share
    return int(name.split(":", 2)[1]) if name.startswith(_CONNECTED) else None


def ends_before(share: str, next_share: str, position: int) -> bool:
    """Whether the process is over where the test at `position` is followed by the next one."""
    last = _last_of_connected(share)
    if last is not None:
        return position >= last
    scoped = share.startswith(("class:", "module:", SPAWNED)) and share != SPAWNED_SESSION
    return scoped and share != next_share
