"""Threads that can be ended before a fork: who needs them starts them again."""

from __future__ import annotations

from typing import Any

from ..own import own_builtins, threading

own_builtins(globals())

_TQDM_MONITOR = ("tqdm._monitor", "TMonitor")
"""Each new progress bar starts one if there is none that was not told to end (tqdm/std.py)."""

_WAIT = 1.0
"""Seconds; it may wait for a lock that the suite holds."""


def _is_restartable(thread: Any) -> bool:
    return (type(thread).__module__, type(thread).__qualname__) == _TQDM_MONITOR


def end_restartable() -> bool:
    """End those that there are; whether there were any."""
    found: list[Any] = [each for each in threading.enumerate() if _is_restartable(each)]
    for thread in found:
        thread.was_killed.set()
        thread.join(_WAIT)
    return bool(found)
