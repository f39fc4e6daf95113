"""What a test process writes to the terminal, which it does not have."""

from __future__ import annotations

import sys
from _io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any, Callable

import pytest

from ...compat import pytest_hooks, pytest_output
from ...own import contextmanager, os, own_builtins, suppress
from ...protocol.descriptors import write_all
from ...protocol.event_file import LiveText
from ...protocol.plain_values import carriable
from .relay import Relay

own_builtins(globals())


class Terminal:
    """Relays live logs, ``--setup-show`` and, without workers, what plugins write.

    With workers plugins have a terminal in the controller, and none beside a test, as under xdist.
    """

    def __init__(self, config: pytest.Config, relay: Relay) -> None:
        self._config = config
        self._relay = relay
        self._in_worker = hasattr(config, "workerinput")
        self._silent = False
        self._waits = pytest_output.redirect_terminal(config, self._write)
        for name in ("pytest_runtest_logstart", "pytest_runtest_logfinish"):
            pytest_hooks.wrap_reporters(config, name, self._silenced)

    def _write(self, text: str) -> None:
        if self._silent:
            return
        if not self._waits and pytest_output.captures_descriptors_now(self._config):
            # What has a terminal writes to it by this descriptor.
            with suppress(OSError):
                write_all(1, text.encode("utf-8", "replace"))
            return
        if self._in_worker and not pytest_output.pytest_itself_writes():
            return
        self._relay.send(LiveText(carriable(text)))

    def _silenced(self, function: Callable[..., object]) -> Callable[..., object]:
        """The same for a plugin that is told so a second time, where there is a terminal."""

        def call(*arguments: Any) -> object:
            with self._silence():
                return function(*arguments)

        return call

    @contextmanager
    def _silence(self) -> Any:
        streams = sys.stdout, sys.stderr
        # Not by open(), which a suite may have replaced.
        with TextIOWrapper(BufferedWriter(FileIO(os.devnull, "w")), "utf-8", "replace") as null:
            self._silent = True
            sys.stdout = sys.stderr = null
            try:
                yield
            finally:
                sys.stdout, sys.stderr = streams
                self._silent = False
