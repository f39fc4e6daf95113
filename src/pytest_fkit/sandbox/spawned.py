"""The main program of a spawned host: a fresh interpreter, not a fork."""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from typing import TYPE_CHECKING, BinaryIO, Callable, Generator, Sequence

import pytest

from .. import system
from ..compat import xdist_worker
from ..compat.pytest_output import terminal_writer
from ..own import hide, os, own_builtins, suppress
from ..protocol.channels import Pipes
from ..protocol.descriptors import slots
from ..protocol.fresh_start import FreshStart, read_rest
from ..protocol.messages import Ready, SessionOver
from ..protocol.repetitions import test_of
from .host.host import Host
from .process.coverage import running_coverage
from .process.crash_wait import WAITS
from .process.output import capture_into_own_files, flush
from .process.steps import run_steps
from .process.test_process import equip, write_stacks_of_deaths

if TYPE_CHECKING:
    from pathlib import Path

own_builtins(globals())


def main(file: BinaryIO, reader: int, writer: int, modules: set[str]) -> None:
    """Collect the test module and run its tests on the keeper's orders.

    :param file: with a :class:`.fresh_start.FreshStart`; the path before it has been read.
    :param reader: descriptor of the pipe from the keeper.
    :param writer: descriptor of the pipe to the keeper.
    :param modules: names of the modules that were imported before any of pytest-fkit.
    """
    with file:
        start = read_rest(file.read())
    sys.path[:] = start.startup_path
    hide(modules)
    slots.begin_at(start.slots)
    slots.in_use = True
    for inherited in (*slots, reader, writer):
        os.set_inheritable(inherited, False)
    write_stacks_of_deaths(start.waits)
    if start.wrapped:
        system.die_with_parent(os.getppid())
    if start.tracer:
        system.let_attach(start.tracer)
    # What pytest prints here is shown only if it fails before the first test.
    os.dup2(slots.out, 1)
    os.dup2(slots.err, 2)
    sys.argv[:] = start.argv
    sys.dont_write_bytecode = not start.writes_bytecode
    link = Pipes(reader, writer)
    os.chdir(start.directory)
    config = xdist_worker.worker_config(
        start.arguments,
        start.workerinput,
        start.basetemp,
        [sys.modules[__name__], _WorkersPath(start.path)],
    )
    config.stash[WAITS] = start.waits
    if start.collect:
        config.args = start.collect
        config.pluginmanager.register(_OnlyFiles(start.paths), "fkit-only")
    config.pluginmanager.register(Spawned(link, start), "fkit-spawned")
    try:
        status = int(config.hook.pytest_cmdline_main(config=config))
    finally:
        with suppress(OSError):  # the keeper is gone
            link.send(SessionOver())
    sys.exit(0 if start.wrapped else status)  # what a wrapper makes of it is about the test


class _WorkersPath:
    """Plugin: sets the worker's ``sys.path`` after plugins and before conftest files are loaded."""

    def __init__(self, path: list[str]) -> None:
        self._path = path

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_load_initial_conftests(self) -> Generator[None, object, object]:
        sys.path[:] = self._path
        return (yield)


class _OnlyFiles:
    """Plugin: restricts collection to given files, whatever the arguments would collect.

    :param paths: the files, and the directories that are collectors above them.
    """

    def __init__(self, paths: list[str]) -> None:
        self._paths = frozenset(paths)

    @pytest.hookimpl(tryfirst=True)
    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        path = str(collection_path)
        if path in self._paths:
            return None
        # Before pytest 8, a package's path is that of its __init__.py.
        directory = path[: -len("/__init__.py")] if path.endswith("/__init__.py") else path
        is_above = any(each.startswith(f"{directory.rstrip('/')}/") for each in self._paths)
        return None if is_above else True


class Spawned:
    """Plugin of a spawned host: adapts collection, and replaces pytest's test loop."""

    def __init__(self, link: Pipes, start: FreshStart) -> None:
        self._link = link
        self._start = start
        self._errors: list[str] = []
        self._deselected: set[str] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """Prepare for imports that kill the process or raise, which the tests then report."""
        # Again: pytest's own faulthandler plugin has replaced it.
        write_stacks_of_deaths(self._start.waits)
        os.ftruncate(slots.out, 0)  # drop the header, which plain pytest shows only once
        capture_into_own_files(session.config)
        session.config.option.continue_on_collection_errors = True
        session.config.option.maxfail = 0

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._errors.append(f"{report.nodeid}:\n{report.longreprtext}")

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._deselected |= {item.nodeid for item in items}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Serve the keeper until it sends Finish."""
        session.config.option.maxfail = self._start.maxfail
        if self._start.force_reruns is not None:  # of the worker, which knows of repetitions
            session.config.option.force_reruns = self._start.force_reruns
        items = self._items_by_position(session)
        if self._start.spare and len(items) < len(self._start.tests):
            # Collection may have failed only because another process runs the same module now.
            return True
        session.items[:] = [items[position] for position in sorted(items)]
        session.testscollected = len(items)
        os.chdir(self._start.current)
        sys.path[:] = self._start.path  # again: options and conftest files add to it
        # The header, which may still be in a buffer.
        terminal_writer(session.config)("")
        flush()
        os.ftruncate(slots.out, 0)
        process = equip(session, running_coverage(), self._start.waits)
        self._link.send(Ready(os.getpid()))
        host = Host(
            process, lambda position: items.get(test_of(position)), self._missing_reason(session)
        )
        run_steps(host.serve_here(self._link))
        return True

    def _items_by_position(self, session: pytest.Session) -> dict[int, pytest.Item]:
        """Map positions in the worker's collection to the items here; node ids may repeat."""
        positions: dict[str, deque[int]] = defaultdict(deque)
        for nodeid, position in self._start.tests:
            positions[nodeid].append(position)
        return {
            positions[item.nodeid].popleft(): item
            for item in session.items
            if positions[item.nodeid]
        }

    def _missing_reason(self, session: pytest.Session) -> Callable[[int], str]:
        """Return a function that explains why this process has no item at a position."""
        nodeids = {position: nodeid for nodeid, position in self._start.tests}
        collected = session.testscollected

        def why(position: int) -> str:
            text = f"the fresh interpreter that was to run this test{self._environ_text()}"
            if nodeids[test_of(position)] in self._deselected:
                return f"{text} collected it, and then a hook or an option deselected it"
            if self._errors:
                return "\n\n".join(
                    [f"{text} did not collect it, because of an error", *self._errors]
                )
            return (
                f"{text} did not collect it, but {collected} of the {len(nodeids)} tests that "
                "the worker collected there; is what is collected different each time?"
            )

        return why

    def _environ_text(self) -> str:
        environ = self._start.environ
        if not environ:
            return ""
        return f" (with {' '.join(f'{name}={text}' for name, text in environ)})"
