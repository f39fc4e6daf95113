"""Ends the pytest session in each test process, as far as it began there."""

from __future__ import annotations

import sys
from typing import Callable

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
"""Part of the command lines of our own processes that read GPU drivers."""


class SessionEnd:
    """Runs cleanups and session hooks in hosts and children before they exit.

    Constructed in the keeper, whose parent is the worker; forked processes inherit it.

    If unraisable exceptions count as errors, each process collects its garbage before it exits, as
    pytest does at the end of its session, so that the test that left them is blamed.
    """

    def __init__(self, session: pytest.Session, relay: Relay) -> None:
        self._session = session
        self._config = session.config
        self._relay = relay
        # Plugins that started processes in the worker must end them there: a fork can't reap them.
        self._plugins_have_processes = any(map(_is_of_a_plugin, children(os.getppid())))
        self._collects = pytest_session.unraisable_errors_count(session.config)
        self._output: dict[str, object] = getattr(session.config, "workeroutput", {})
        self._sent_output: dict[str, object] = {}
        self._young = 0
        self._dropped: list[object] = []

    def enter_process(self) -> None:
        """In a new process: drop inherited cleanups, which the process that added them runs."""
        self._dropped.append(pytest_session.forget_cleanups(self._config))
        self._sent_output = carriable(self._output) if self._output else {}
        if self._collects:
            self._young = _young_collections()

    def report_unraisable(self) -> None:
        """Before a fork: report unraisable exceptions, which the new process would inherit."""
        if self._collects:
            gc.collect()
            self._try(pytest_session.raise_unraisable, self._config)

    def finish_session(self) -> None:
        """After the last test of this process: finish the session for plugins that ran here."""
        found = pytest_hooks.plugins_of_tests(self._config, self._plugins_have_processes)
        if not found:
            return
        statuses: list[int | None] = []
        finished = list(found.values())
        self._try(lambda: statuses.append(pytest_hooks.finish_session(self._session, finished)))
        status = statuses[0] if statuses else None
        self._relay.send(SessionFinished(tuple(map(carriable, found)), status))

    def conclude(self) -> None:
        """Report unraisable exceptions, and run cleanups; only exit handlers run after this."""
        if self._collects:
            # Objects from before the fork are in the oldest generation, see startup.py.
            gc.collect(_YOUNG if _young_collections() == self._young else 2)
            self._try(pytest_session.raise_unraisable, self._config)
        if pytest_session.has_cleanups(self._config):
            self._try(pytest_session.run_cleanups, self._config)
        if self._output:
            self._send_output()

    def _send_output(self) -> None:
        output = carriable(self._output)
        new = {
            name: value for name, value in output.items() if self._sent_output.get(name) != value
        }
        if new:
            self._relay.send(WorkerOutput(new))
            self._sent_output = output

    def _try(self, action: Callable[..., None], *arguments: object) -> None:
        try:
            action(*arguments)
        except BaseException as error:  # noqa: BLE001 (of the suite's own code)
            self._relay.send(EndError(carriable(stack_text(error))))


def _young_collections() -> int:
    return sum(each["collections"] for each in gc.get_stats()[_YOUNG:])


def _is_of_a_plugin(pid: int) -> bool:
    """Whether a child process of the worker is alive and not ours."""
    if pid == os.getpid() or process_state(pid) in ("", "Z"):
        return False
    return _READERS not in describe(pid)
