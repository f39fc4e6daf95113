"""Signals processes and all their descendants."""

from __future__ import annotations

import re
from typing import Callable

from ... import system
from ...own import os, own_builtins, select, signal, suppress, time

own_builtins(globals())

# One that tests don't use; macOS has no real-time signals.
DUMP_SIGNAL = signal.SIGRTMAX - 3 if hasattr(signal, "SIGRTMAX") else signal.SIGINFO  # type: ignore[attr-defined,unused-ignore]
"""The signal on which a test process dumps the stacks of all its threads."""

KILL_WAIT = 2.0
"""Seconds for SIGKILL to take effect."""


Until = Callable[[Callable[[], bool], float], bool]
"""Waits for a condition, at most so many seconds; returns whether it holds."""


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    return system.process_state(pid) not in ("", "Z")


_TRACKER = re.compile(r" -c from [\w.]*\bresource_tracker import main\b")
_LINGERING = re.compile(r"^(?:[^ ]*/)?torch_shm_manager$")


def lingers(pid: int) -> bool:
    """Whether a process is PyTorch's manager of shared memory.

    It removes what its clients leave there, and ends 2 seconds after the last one has (``libshm``).
    """
    return bool(_LINGERING.search(system.command_line(pid)))


def cleans_up(pid: int) -> bool:
    """Whether a process ends by itself, after it has removed what those that are gone left behind.

    multiprocessing and Loky have trackers of resources for that, PyTorch has a manager.
    """
    command = system.command_line(pid)
    return bool(_TRACKER.search(command) or _LINGERING.search(command))


def below(pid: int) -> list[int]:
    """The descendants of a process that end only if they are ended."""
    return [each for each in system.descendants(pid) if not cleans_up(each)]


def kill_tree(pid: int) -> None:
    """SIGKILL a process and its descendants, except those that clean up after them."""
    # Stop them first, so that none forks while the list is made.
    send_signal(pid, signal.SIGSTOP)
    tree = [pid, *below(pid)]
    for process in tree:
        send_signal(process, signal.SIGSTOP)
    for process in [*tree, *below(pid)]:
        send_signal(process, signal.SIGKILL)


def end_trees(left: Callable[[], set[int]], until: Until, limit: float) -> tuple[str, ...]:
    """SIGKILL processes and all below them, until none is left or the time is over.

    :param left: returns the pids of those that are left.
    :param limit: seconds.
    :return: a description of each process that was killed.
    """
    named: dict[int, str] = {}
    deadline = time.monotonic() + limit
    found = left()
    while found and time.monotonic() < deadline:
        for pid in found:
            if system.process_state(pid) == "Z":
                continue
            for process in (pid, *below(pid)):
                named.setdefault(process, system.describe(process))
            kill_tree(pid)
        until(lambda: not left(), 0.05)
        found = left()
    return tuple(named.values())


def end_children(limit: float) -> None:
    """Kill and reap all children of this process, adopted ones included, within `limit` seconds.

    Those that clean up get a second more to end by themselves.
    """
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline + 1:
        late = time.monotonic() > deadline
        found = system.adopted_children(set())
        cleaning = set(filter(cleans_up, found))
        if late and not cleaning:
            return
        for pid in found - cleaning:
            kill_tree(pid)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        select.select([], [], [], 0.01)
    for pid in system.adopted_children(set()):
        kill_tree(pid)


class StoppedGrowing:
    """Tells whether a file has grown, and has not grown further since the last call.

    :param size: of the file before it could grow, in bytes.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._start = self._size = size

    def __call__(self) -> bool:
        before, self._size = self._size, os.fstat(self._descriptor).st_size
        return self._start < self._size == before
