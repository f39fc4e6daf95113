"""Sends coverage.py's data from test processes, which exit without saving it."""

from __future__ import annotations

import sys
from typing import Any, Iterator

import pytest

from ...own import contextmanager, no_warnings, os, own_builtins, socket, suppress
from ...protocol.event_file import Measured
from .relay import Relay

own_builtins(globals())


def running_coverage() -> Any | None:
    """In the worker, before a fork: save coverage.py's data, and return the running ``Coverage``.

    None if coverage.py is not loaded or not running.
    """
    coverage: Any = sys.modules.get("coverage")
    current = coverage.Coverage.current() if coverage is not None else None
    if current is not None:
        with quietly():
            _save(current)
    return current


def arguments_for_another(config: pytest.Config) -> list[str]:
    """Arguments to put before the command line of a fresh interpreter, for pytest-cov.

    Without ``--cov-append`` pytest-cov would erase what other processes have measured by then.
    """
    return ["--cov-append"] if config.getoption("cov_source", None) else []


def input_for_another(config: pytest.Config) -> dict[str, Any]:
    """The worker input that pytest-cov expects, where pytest-cov has not set it."""
    return {
        "cov_master_host": socket.gethostname(),
        "cov_master_topdir": str(config.invocation_params.dir),
        "cov_master_rsync_roots": [],
    }


class Measuring:
    """Sends what coverage.py measured in this process.

    :param coverage: the result of :func:`running_coverage` before any fork.
    """

    def __init__(self, relay: Relay, coverage: Any | None) -> None:
        self._relay = relay
        self._coverage = coverage if coverage is not None and _has_own_data(coverage) else None
        self.is_on = self._coverage is not None
        """Whether it does anything: a fork copies the pages of each function that is called."""
        self._keeps_file = False

    def before_test(self, item: pytest.Item) -> None:
        """Keep the data file if others write to it: nbval's kernels do, when they exit."""
        if type(item).__module__.startswith("nbval."):
            self._keeps_file = True

    def send(self, last: bool = False) -> None:
        """Send what was measured since the last call, unless the test has made that impossible.

        :param last: whether the process is about to end, and others have stopped writing.
        """
        if self._coverage is None:
            return
        failures = (OSError, sys.modules["coverage"].CoverageException)
        with quietly(), suppress(*failures):
            data = _save(self._coverage)
            if data and (last or not self._keeps_file):
                self._relay.send(_measured(data))
                data.erase()

    def resume(self, item: pytest.Item) -> None:
        """After :meth:`send` amid a setup: switch back to the context of that phase.

        pytest-cov's plugin "_cov_contexts" sets a context for each phase.
        """
        contexts: Any = item.config.pluginmanager.getplugin("_cov_contexts")
        if self._coverage is not None and contexts is not None:
            contexts.switch_context(item, "setup")


@contextmanager
def quietly() -> Iterator[None]:
    """Within the block, drop warnings of what is not measured yet; they are repeated at the end."""
    with no_warnings():
        yield


def _has_own_data(coverage: Any) -> bool:
    """Whether this process has data of its own; otherwise processes would erase each other's.

    After a fork, coverage.py uses another file if its file has a suffix (``parallel = true``). If
    not, as with ``coverage run -m pytest``, the data stays in memory.
    """
    try:
        data = coverage._data
        if data._suffix:
            return True
        if data._pid == os.getpid():  # it has that file already: a fresh interpreter
            return False
    except AttributeError:  # another version
        return False
    data._no_disk = True
    return True


def _save(coverage: Any) -> Any:
    """Flush what was measured into the coverage data, and return it."""
    with suppress(sys.modules["coverage"].CoverageException):  # paused by the test
        # Flushes like get_data(), but without searching for files that never ran.
        coverage.switch_context("")
    return coverage.get_data()


def _measured(data: Any) -> Measured:
    arcs = bool(data.has_arcs())
    contexts: dict[str, dict[str, Any]] = {}
    files = list(data.measured_files())
    for context in data.measured_contexts():
        # Not set_query_contexts(), whose argument is a pattern and would have to be escaped.
        data.set_query_context(context)
        counted = {path: (data.arcs if arcs else data.lines)(path) for path in files}
        contexts[context] = {path: tuple(found) for path, found in counted.items() if found}
    data.set_query_contexts(None)
    tracers = {path: data.file_tracer(path) for path in files}
    return Measured(arcs, contexts, {path: name for path, name in tracers.items() if name})
