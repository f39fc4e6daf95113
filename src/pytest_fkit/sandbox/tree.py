"""Signals to processes, and to all below them."""

from __future__ import annotations

import contextlib
import os
import signal

from .. import system

# No test has a use for this one; macOS has no real-time signals.
DUMP_SIGNAL = signal.SIGRTMAX - 3 if hasattr(signal, "SIGRTMAX") else signal.SIGINFO  # type: ignore[attr-defined,unused-ignore]
"""On this one a test process writes the stacks of its threads."""


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, one that only waits to be waited for left out."""
    return system.process_state(pid) not in ("", "Z")


def kill_tree(pid: int) -> None:
    """End a process and its descendants by SIGKILL."""
    # Stopped first, so that nothing forks away from under the list.
    send_signal(pid, signal.SIGSTOP)
    tree = [pid, *system.descendants(pid)]
    for process in tree:
        send_signal(process, signal.SIGSTOP)
    for process in [*tree, *system.descendants(pid)]:
        send_signal(process, signal.SIGKILL)


class Settled:
    """Tells whether a file has grown and stopped growing, from one call to the next.

    :param size: of the file before it could grow.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._start = self._size = size

    def __call__(self) -> bool:
        """Whether the file is longer than `size` and as long as at the last call."""
        before, self._size = self._size, os.fstat(self._descriptor).st_size
        return self._start < self._size == before
