"""Names of processes that tests share; the first word is how long the process lives."""

from __future__ import annotations

from ..own import own_builtins

own_builtins(globals())

SESSION = "session"
"""The process that runs all tests."""

SPAWNED = "spawn:"
"""Begins the name of a fresh interpreter; the name that a forked process would have, or the node id
of a test that has one of its own, follows."""

SPAWNED_SESSION = f"{SPAWNED}{SESSION}"
"""The fresh interpreter that collects everything and runs all tests."""

APART = f"{SPAWNED}apart:"
"""Begins the name of a fresh interpreter beside which the worker has no other process."""

_CONNECTED = "connected:"


def connected_share(nodeid: str, last: int) -> str:
    """The name for tests that plugins connect, which may have others in between.

    :param nodeid: of the first.
    :param last: position of the last.
    """
    return f"{_CONNECTED}{last}:{nodeid}"


def _last_of_connected(share: str) -> int | None:
    name = share[len(SPAWNED) :] if share.startswith(SPAWNED) else share
    return int(name.split(":", 2)[1]) if name.startswith(_CONNECTED) else None


def ends_before(share: str, next_share: str, position: int) -> bool:
    """Whether the process ends after the test at `position`, if the next one has this name."""
    last = _last_of_connected(share)
    if last is not None:
        return position >= last
    scoped = share.startswith(("class:", "module:", SPAWNED)) and share != SPAWNED_SESSION
    return scoped and share != next_share
