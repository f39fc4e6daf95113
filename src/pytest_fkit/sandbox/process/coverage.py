"""What coverage.py counts in a test process, sent before the process leaves without saving it."""

from __future__ import annotations

import sys
from typing import Any, Iterator

import pytest

from ...own import contextmanager, no_warnings, os, own_builtins, socket, suppress
from ...protocol.event_file import Measured
from ...system.paths import joined
from .relay import Relay

own_builtins(globals())


def running_coverage() -> Any | None:
    """In the worker, before a fork: the ``Coverage`` object that counts, what it counted saved.

    None if coverage.py is not loaded, does not count, or writes into a data file whose name is the
    same in all processes, which would erase each other's.
    """
    coverage: Any = sys.modules.get("coverage")
    current = coverage.Coverage.current() if coverage is not None else None
    if current is None:
        return None
    with quietly():
        name = _save(current).data_filename()
    return None if name == joined(os.getcwd(), current.get_option("run:data_file")) else current


def arguments_for_another(config: pytest.Config) -> list[str]:
    """What comes before the command line of a fresh interpreter in which pytest-cov measures, too.

    Otherwise it erases, when it starts, what others have counted by then.
    """
    return ["--cov-append"] if config.getoption("cov_source", None) else []


def input_for_another(config: pytest.Config) -> dict[str, Any]:
    """What pytest-cov tells a worker, in case it has not told this process."""
    return {
        "cov_master_host": socket.gethostname(),
        "cov_master_topdir": str(config.invocation_params.dir),
        "cov_master_rsync_roots": [],
    }


class Measuring:
    """Sends what was counted in this process since the last time.

    :param coverage: as :func:`running_coverage` gives it, before any fork.
    """

    def __init__(self, relay: Relay, coverage: Any | None) -> None:
        self._relay = relay
        self._coverage = coverage
        self._keeps_file = False

    def note(self, item: pytest.Item) -> None:
        """See who else writes into this process's file: nbval's kernels do, at their end."""
        if type(item).__module__.startswith("nbval."):
            self._keeps_file = True

    def send(self, last: bool = False) -> None:
        """Send it, unless there is nothing, or the test has made that impossible.

        :param last: whether the process ends, and with it who else writes into its file.
        """
        if self._coverage is None:
            return
        failures = (OSError, sys.modules["coverage"].CoverageException)
        with quietly(), suppress(*failures):
            # After a fork this has a file of its own.
            data = _save(self._coverage)
            if data and (last or not self._keeps_file):
                self._relay.send(_measured(data))
                data.erase()

    def resume(self, item: pytest.Item) -> None:
        """After :meth:`send` in the midst of a setup: what follows has the context it had.

        pytest-cov's plugin of this name has one for each phase.
        """
        contexts: Any = item.config.pluginmanager.getplugin("_cov_contexts")
        if self._coverage is not None and contexts is not None:
            contexts.switch_context(item, "setup")


@contextmanager
def quietly() -> Iterator[None]:
    """Within the block: no warnings on what is not measured yet; they come again at the end."""
    with no_warnings():
        yield


def _save(coverage: Any) -> Any:
    """The coverage data, complete."""
    with suppress(sys.modules["coverage"].CoverageException):  # paused by the test
        # Saves, as get_data() does too, but without its search for files that never ran.
        coverage.switch_context("")
    return coverage.get_data()


def _measured(data: Any) -> Measured:
    arcs = bool(data.has_arcs())
    contexts: dict[str, dict[str, Any]] = {}
    files = list(data.measured_files())
    for context in data.measured_contexts():
        # "" stands for the context of that name; a pattern for itself would have to be escaped.
        data.set_query_context(context)
        counted = {path: (data.arcs if arcs else data.lines)(path) for path in files}
        contexts[context] = {path: tuple(found) for path, found in counted.items() if found}
    data.set_query_contexts(None)
    tracers = {path: data.file_tracer(path) for path in files}
    return Measured(arcs, contexts, {path: name for path, name in tracers.items() if name})
