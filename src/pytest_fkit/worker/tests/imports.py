"""Modules whose import ends the process.

Only a worker that replaces one that died during collection imports each in a process of its own
first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Callable, Generator, NoReturn

import pytest

from ... import system
from ...compat.pytest_session import collection_error
from ...own import faulthandler, os, own_builtins, select, signal, suppress, time
from ...protocol.crash_report import CrashReport, NativeStacks
from ...protocol.descriptors import Files, read_from, slots
from ...protocol.endings import Ending, Finished, Signaled, TimedOut, from_wait_status
from ...protocol.event_file import ReportFacts
from ...protocol.stacks import fatal_error, innermost_frame, origins, reorder_stacks
from ...sandbox.keeper.crashes import DIED_AT_ONCE, ROUND, TICK, end_crashed
from ...sandbox.keeper.debugger import Debugger, Runner, Tools, find_tools
from ...sandbox.process.copies import Statuses, fork
from ...sandbox.process.crash_wait import FATAL, await_keeper, crashed, end_thread
from ...sandbox.process.excerpts import free_middle, read_ends
from ...sandbox.process.output import flush
from ...sandbox.process.test_process import write_stacks_of_deaths
from ...sandbox.process.tree import send_signal
from ...system.limits import is_refusal, refusal
from ...system.paths import below
from ...system.stack_texts import entries
from ..reports.deaths import NativeSection

if TYPE_CHECKING:
    from pathlib import Path

own_builtins(globals())

_SURVIVED = b"survived"

_DUMP_WAIT = 1.0
"""Seconds for a hanging import to write its stacks."""

_STACKS_LIMIT = 40.0
"""Seconds for a debugger and the wait for its turn: all workers try the same imports at once."""


class Collection:
    """Plugin of every process that collects."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Report SystemExit, which would end the run, as an error of the module."""
        try:
            report = yield
        except SystemExit as error:
            return _exit_report(collector, error)
        # Old versions of pytest report it themselves, once per worker.
        raised = collection_error(report)
        return _exit_report(collector, raised) if isinstance(raised, SystemExit) else report


class LimitedCollection:
    """Plugin of a worker: ends it when an import hangs, so that a careful one replaces it.

    :param limit: seconds for one import.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Limit the import by faulthandler's timer, which needs no Python thread and no GIL."""
        if not isinstance(collector, pytest.File):
            return (yield)
        faulthandler.dump_traceback_later(self._limit, exit=True, file=2)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()


class CarefulCollection:
    """Plugin of a worker that expects an import to kill it.

    :param limit: seconds for one import, 0 for no limit.
    """

    def __init__(self, limit: float, native: bool) -> None:
        self._limit = limit
        self._native = native
        self._tools = find_tools() if native else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> pytest.CollectReport | None:
        """Report the file as an error if collecting it kills a copy of this process."""
        if not isinstance(collector, pytest.File):
            return None
        slots.settle()
        try:
            files = Files.create()
            try:
                ending, stacks = self._try(collector, files)
                if isinstance(ending, Finished):
                    return None
                return _error(collector, ending, files, self._section(ending, stacks))
            finally:
                files.close()
        except OSError as error:
            if not is_refusal(error):
                raise
            return _failed(collector, f"no process to try it in: {refusal(error)}", [], [])

    def _try(self, collector: pytest.File, files: Files) -> tuple[Ending, NativeStacks | None]:
        flush()
        worker = os.getpid()
        statuses = Statuses()
        with statuses:
            pid = fork()
            if pid == 0:
                _collect_and_leave(collector, files, statuses, worker, self._tools is not None)
            trial = _Trial(pid, files, self._tools)
            in_time = trial.wait(self._limit)
        if not in_time:
            return TimedOut(self._limit), trial.stacks
        if read_from(files.events) == _SURVIVED:
            return Finished(), None
        return from_wait_status(trial.status), trial.stacks

    def _section(self, ending: Ending, stacks: NativeStacks | None) -> NativeSection:
        if not self._native:
            return NativeSection()
        crashed_at_once = isinstance(ending, Signaled) and ending.signal in FATAL
        if stacks is None and self._tools is not None and crashed_at_once:
            stacks = self._tools.crash.unasked(DIED_AT_ONCE)
        from ..reports.native_stacks import section_of

        return section_of(stacks, ending)


def _collect_and_leave(
    collector: pytest.File, files: Files, statuses: Statuses, worker: int, waits: bool
) -> NoReturn:
    try:
        statuses.leave()
        os.setpgid(0, 0)
        system.die_with_parent(worker)
        if waits and system.must_let_attach():
            system.let_attach(worker)
        files.install()
        os.dup2(slots.out, 1)
        os.dup2(slots.err, 2)
        write_stacks_of_deaths(waits)
        # The worker meets, and reports, errors when it imports the file itself.
        with suppress(BaseException):
            try:
                list(collector.collect())
            except Exception:  # noqa: BLE001 (of the suite)
                str(collector.repr_failure(pytest.ExceptionInfo.from_current()))
        if waits:
            await_keeper()
        os.write(slots.events, _SURVIVED)
    finally:
        os._exit(1)


class _Trial:
    """A copy of this process that collects a file, seen from outside.

    :param tools: print native stacks; None if no thread of it waits after a fatal signal.
    """

    def __init__(self, pid: int, files: Files, tools: Tools | None) -> None:
        self._pid = pid
        self._files = files
        self._debugger = None
        if tools is not None:
            self._debugger = Debugger(tools, Runner(self._until, lambda _: None))
        self._next_look = self._next_round = 0.0
        self.status: int = -1
        """As waitpid(2) gives it; -1 while it lives."""
        self.stacks: NativeStacks | None = None
        """If it crashed, or took too long."""

    def wait(self, limit: float) -> bool:
        """Wait until it has ended; whether it did so by itself, within the limit.

        :param limit: seconds, 0 for no limit.
        """
        if self._until(self._has_ended, limit or float("inf")):
            return True
        crashed_in_time = self.stacks is not None
        if crashed_in_time and self._until(self._has_ended, _DUMP_WAIT):
            return True
        self._end()
        return False

    def _has_ended(self) -> bool:
        if self.status < 0:
            found, status = os.waitpid(self._pid, os.WNOHANG)
            self.status = status if found else -1
        return self.status >= 0

    def _until(self, condition: Callable[[], bool], limit: float) -> bool:
        deadline = time.monotonic() + limit
        while not condition():
            if time.monotonic() > deadline:
                return False
            free_middle(self._files.out)
            free_middle(self._files.err)
            self._look()
            select.select([], [], [], 0.002)
        return True

    def _look(self) -> None:
        """If it crashed, ask for its stacks and end it; end processes of its own that crashed."""
        debugger, now = self._debugger, time.monotonic()
        if debugger is None or now < self._next_look:
            return
        self._next_look = now + TICK
        crash = crashed(self._pid)
        if crash is not None:
            self._debugger = None  # as it waits for the tool it comes by here again
            self.stacks = self.stacks or debugger.stacks(self._pid, crash[0], _STACKS_LIMIT)
            self._debugger = debugger
            end_thread(self._pid, *crash)
        elif now >= self._next_round:
            self._next_round = now + ROUND
            end_crashed(system.descendants(self._pid))

    def _end(self) -> None:
        tree = (self._pid, *system.descendants(self._pid))
        debugger, self._debugger = self._debugger, None
        if debugger is not None and self.stacks is None:
            self.stacks = debugger.stacks(self._pid, limit=_STACKS_LIMIT)
        os.kill(self._pid, signal.SIGTERM)  # faulthandler writes the stacks
        if not self._until(self._has_ended, _DUMP_WAIT):
            os.kill(self._pid, signal.SIGKILL)
            self._until(self._has_ended, float("inf"))
        for process in tree[1:]:
            send_signal(process, signal.SIGKILL)


def _error(
    collector: pytest.Collector, ending: Ending, files: Files, native: NativeSection
) -> pytest.CollectReport:
    rootdir = collector.config.rootpath
    out, err, dump = (
        read_ends(file).decode("utf-8", "replace") for file in (files.out, files.err, files.dump)
    )
    if not dump and ending.title == "SIGABRT":
        dump = fatal_error(err)
    frame = innermost_frame(dump, rootdir)
    where = f" at {frame.path}:{frame.line} in {frame.name}" if frame is not None else ""
    function = f" in {native.function}" if native.function else ""
    headline = f"{ending.title}{function}{where}"
    # xdist shows an error once if all workers report the same text: no numbers of threads.
    stacks = re.sub(r"(?<=hread 0x)[0-9a-f]+", "0", reorder_stacks(dump))
    told = re.sub(r"^thread \d+", "thread", native.text, flags=re.MULTILINE)
    before, after = (_first_line(headline, collector), ""), ("", told) if told else ()
    crash = CrashReport(ending.title, before, stacks, after, origins(collector.config))
    written = (("Captured stdout", out), ("Captured stderr", err))
    sections = [(title, text) for title, text in written if text]
    text = crash.text.rstrip()
    return _report(collector, text, sections, death=headline, crash=crash.to_wire())


def _exit_report(collector: pytest.Collector, error: SystemExit) -> pytest.CollectReport:
    path, line = _where(error, collector.config.rootpath)
    headline = f"SystemExit: {error.code} at {path}:{line}"
    assert error.__traceback__ is not None
    raised = type(error), error, error.__traceback__
    text = str(collector.repr_failure(pytest.ExceptionInfo.from_exc_info(raised)))
    return _failed(collector, headline, [text], [])


def _failed(
    collector: pytest.Collector, headline: str, lines: list[str], sections: list[tuple[str, str]]
) -> pytest.CollectReport:
    text = "\n".join([_first_line(headline, collector), "", *lines])
    return _report(collector, text.rstrip(), sections, death=headline)


def _first_line(headline: str, collector: pytest.Collector) -> str:
    """The line of a report that pytest's short summary shows."""
    return f"{headline}, importing {collector.nodeid}"


def _report(
    collector: pytest.Collector, text: str, sections: list[tuple[str, str]], **facts: Any
) -> pytest.CollectReport:
    # xdist carries this report, and no types of ours.
    told = tuple(ReportFacts(**facts))
    return pytest.CollectReport(collector.nodeid, "failed", text, [], sections, fkit=told)


def _where(error: BaseException, rootdir: Path) -> tuple[str, int]:
    """The innermost line under `rootdir` that raised `error`."""
    found = ("?", 0)
    for entry in entries(error.__traceback__):
        path = below(entry.tb_frame.f_code.co_filename, str(rootdir))
        if path is not None and "site-packages" not in path.split("/"):
            found = (path, entry.tb_lineno)
    return found
