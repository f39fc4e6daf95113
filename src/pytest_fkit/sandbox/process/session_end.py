"""What pytest does when its session ends, done at the end of each process for what began there."""

from __future__ import annotations

import sys
from typing import Any, Callable

import pytest

from ...compat import pytest_hooks, pytest_session
from ...own import gc, os, own_builtins
from ...protocol.event_file import EndError, SessionFinished, WorkerOutput
from ...protocol.plain_values import carriable
from ...system import children, describe, process_state
from ...system.stack_texts import stack_text
from .relay import Relay

own_builtins(globals())

# From Python 3.14 on there is one young generation.
_YOUNG = 1 if sys.version_info < (3, 14) else 0

_READERS = "pytest_fkit.gpu."
"""In the command lines of processes that read what drivers say: they are ours."""


class SessionEnd:
    """Ends the session in a process that another one was forked from, or that runs tests itself.

    Made in the keeper, whose parent is the worker.

    Where a warning of an error that nobody could raise is an error, what a test left is collected
    as pytest collects it, by the process that ran the test.
    """

    def __init__(self, session: pytest.Session, relay: Relay) -> None:
        self._session = session
        self._config = session.config
        self._relay = relay
        # What started processes there is to end them, which a copy of it can't wait for.
        self._begun = any(map(_is_of_a_plugin, children(os.getppid())))
        self._collects = pytest_session.unraisable_errors_count(session.config)
        self._output: dict[str, Any] = getattr(session.config, "workeroutput", {})
        self._told: dict[str, Any] = {}
        self._young = 0
        self._dropped: list[object] = []

    def enter_process(self) -> None:
        """In a new process: the clean-ups that there are belong to the one that added them."""
        self._dropped.append(pytest_session.forget_cleanups(self._config))
        self._told = carriable(self._output)
        if self._collects:
            self._young = _young_collections()

    def settle(self) -> None:
        """Before others are forked: report what they would take for their own."""
        if self._collects:
            gc.collect()
            self._try(lambda: pytest_session.raise_unraisable(self._config))

    def finish_session(self) -> None:
        """In a process that ran all tests that it was there for: tell the plugins that saw them."""
        found = pytest_hooks.plugins_of_tests(self._config, self._begun)
        if not found:
            return
        wanted: list[int | None] = []
        finished = list(found.values())
        self._try(lambda: wanted.append(pytest_hooks.finish_session(self._session, finished)))
        status = wanted[0] if wanted else None
        self._relay.send(SessionFinished(tuple(map(carriable, found)), status))

    def conclude(self) -> None:
        """The process has nothing left to do but to run its exit handlers."""
        if self._collects:
            # What is older than this process is in the oldest generation, see startup.py.
            gc.collect(_YOUNG if _young_collections() == self._young else 2)
            self._try(lambda: pytest_session.raise_unraisable(self._config))
        self._try(lambda: pytest_session.run_cleanups(self._config))
        if self._output:
            self._tell_output()

    def _tell_output(self) -> None:
        output = carriable(self._output)
        new = {name: value for name, value in output.items() if self._told.get(name) != value}
        if new:
            self._relay.send(WorkerOutput(new))
            self._told = output

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 (of the suite's own code)
            self._relay.send(EndError(carriable(stack_text(error))))


def _young_collections() -> int:
    return sum(each["collections"] for each in gc.get_stats()[_YOUNG:])


def _is_of_a_plugin(pid: int) -> bool:
    """Whether a child of the worker is none of ours, and alive."""
    if pid == os.getpid() or process_state(pid) in ("", "Z"):
        return False
    return _READERS not in describe(pid)
