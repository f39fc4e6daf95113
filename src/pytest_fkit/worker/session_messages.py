"""What a keeper says that concerns the session, not the test that runs."""

from __future__ import annotations

from typing import Any, Callable, Iterator

import pytest

from ..compat import pytest_hooks
from ..compat.guarded_hooks import record_warning
from ..own import own_builtins
from ..protocol.endings import Finished
from ..protocol.event_file import (
    Completed,
    EndError,
    LiveText,
    Measured,
    PluginState,
    SessionFinished,
    WideTeardown,
    WorkerOutput,
)
from ..protocol.messages import Events, Inspected, Message, Notice, Output, TornDown
from ..protocol.wire import unpack_all
from .reports.plugin_states import Gathered, ReceivedStates
from .reports.reports import Reports
from .reports.terminal_output import LIVE, Lines

own_builtins(globals())


_OF_SESSION = frozenset({Measured, PluginState, SessionFinished, Notice, WorkerOutput, Inspected})
"""Types of messages that concern the session."""


class SessionMessages:
    """Acts on messages that concern the session, and passes the others on.

    :param reports: flushed whenever a process may not report anything more for a while.
    """

    def __init__(self, session: pytest.Session, reports: Reports) -> None:
        self._session = session
        self._reports = reports
        self._states = ReceivedStates(session.config)
        self._gathered = Gathered()
        self._noticed: set[str] = set()
        self.on_inspected: Callable[[Inspected], None] = lambda _: None
        """Called with what the keeper saw of the running test."""
        self.exitstatus: int | None = None
        """The exit status that a plugin asked for when the session ended in another process."""

    def filter(self, messages: Iterator[Message]) -> Iterator[Message]:
        """The messages that concern a test, those in Events unpacked."""
        for message in messages:
            inner = message
            for inner in unpack_all(message.frames) if isinstance(message, Events) else (message,):
                if type(inner) in _OF_SESSION:
                    self._act_on(inner)
                else:
                    yield inner
            if isinstance(message, Events) and not isinstance(inner, Completed):
                self._reports.flush()

    def _act_on(self, message: Message) -> None:
        if isinstance(message, Measured):
            self._gathered.add(message)
        elif isinstance(message, PluginState):
            self._states.keep(message)
        elif isinstance(message, SessionFinished):
            pytest_hooks.forget_ends(self._session.config, message.plugins)
            self.exitstatus = message.exitstatus
        elif isinstance(message, Notice):
            if message.text not in self._noticed:
                self._noticed.add(message.text)
                self.warn(message.text)
        elif isinstance(message, WorkerOutput):
            output = getattr(self._session.config, "workeroutput", None)  # xdist's, if a worker's
            if output is not None:
                output.update(message.values)
        elif isinstance(message, Inspected):
            self.on_inspected(message)

    def warn(self, text: str) -> None:
        """Add a warning of ours to the summary."""
        record_warning(self._session.config, text)

    def conclude(self, coverage: Any | None) -> None:
        """Hand over what was gathered, when no test is left.

        :param coverage: coverage.py's object, if it counts.
        """
        self._states.conclude()
        if coverage is not None:
            self._gathered.add_to(coverage)


def hear_last(
    messages: Iterator[Message], lines: Lines, warn: Callable[[str], None], stopping: bool
) -> None:
    """Act on what comes after the last test: there is none left whose report could have it.

    :param lines: gets the text that is written to the terminal.
    :param stopping: whether processes were ended because the run was stopped.
    """
    for message in messages:
        if isinstance(message, Output):
            lines.feed(message.fd, message.text)
        elif isinstance(message, LiveText):
            lines.feed_text(LIVE, message.text)
        elif isinstance(message, WideTeardown) and message.report is not None:
            warn("a wide fixture failed when it was torn down, after the last test")
        elif isinstance(message, EndError):
            warn(f"raised at the end of a process that ran tests: {message.text}")
        elif isinstance(message, TornDown):
            ending, gpu_memory = message.ended.ending, message.ended.gpu_memory
            if not isinstance(ending, Finished) and not stopping:
                warn(f"the process that tears wide fixtures down {ending.story}")
            if gpu_memory:
                warn(f"GPU memory not given back: {'; '.join(gpu_memory)}")
