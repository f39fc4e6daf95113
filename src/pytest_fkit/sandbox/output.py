"""Where the output of a test process goes, so that it outlives the process."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Callable, Generator

import pytest

from .. import private_api
from .descriptors import ERR, OUT


class OutputPolicy:
    """Points captured and, in workers, uncaptured output to the process's own files."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        # Without capture in a worker, descriptor 1 is /dev/null; the keeper passes output on.
        self._stream = config.getoption("capture") == "no" and hasattr(config, "workerinput")

    def enter_process(self) -> None:
        """In a new process, whose files are installed."""
        descriptors = private_api.capture_descriptors(self._config)
        if descriptors is not None:
            _point(descriptors)
        for stream, number in private_api.python_level_captures(self._config):
            _copy_writes(stream, OUT if number == 1 else ERR)
        if self._stream:
            _point((1, 2))

    def enter_exit(self) -> None:
        """After the test: what exit handlers print is kept off the terminal."""
        with contextlib.suppress(OSError):  # closed by the test
            _point((1, 2))


class CaptureFixtures:
    """Plugin: what tests with capsys, capfd and the like print is kept as well."""

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, object, object]:
        """Look at the fixture's value once it is there."""
        __tracebackhide__ = True
        value = yield
        if fixturedef.argname.startswith("cap"):
            descriptors = private_api.fixture_capture_descriptors(value)
            if descriptors is not None:
                _point(descriptors)
            for stream, number in private_api.fixture_captures(value):
                _copy_writes(stream, OUT if number == 1 else ERR)
        return value


def _point(descriptors: Any) -> None:
    for source, target in zip((OUT, ERR), descriptors):
        os.dup2(source, target, inheritable=target in (1, 2))


def _copy_writes(stream: Any, descriptor: int) -> None:
    """Have text that goes into an object in memory also written to a file."""
    write: Callable[[str], int] = stream.write

    def write_both(text: str) -> int:
        with contextlib.suppress(OSError):  # closed by the test
            os.write(descriptor, text.encode("utf-8", "replace"))
        return write(text)

    stream.write = write_both
