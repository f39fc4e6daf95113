"""Modules whose import ends the process.

Only a worker that replaces one that died during collection imports each in a process of its own
first.
"""

from __future__ import annotations

import re
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generator, NoReturn

import pytest

from ... import system
from ...own import faulthandler, os, own_builtins, select, signal, suppress, time
from ...protocol.crash_report import CrashReport
from ...protocol.descriptors import Files, read_from, slots
from ...protocol.endings import Ending, Finished, TimedOut, from_wait_status
from ...protocol.event_file import ReportFacts
from ...protocol.stacks import innermost_frame, origins, reorder_stacks
from ...sandbox.host.children import Statuses
from ...sandbox.process.copies import fork
from ...sandbox.process.excerpts import free_middle, read_ends
from ...sandbox.process.output import flush
from ...sandbox.process.tree import send_signal
from ...system.limits import is_refusal, refusal
from ...system.paths import below
from ...system.stack_texts import entries

if TYPE_CHECKING:
    from pathlib import Path

own_builtins(globals())

_SURVIVED = b"survived"

_DUMP_WAIT = 1.0
"""Seconds for a hanging import to write its stacks."""


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
        call = getattr(report, "call", None)
        if call is not None and call.excinfo is not None:
            raised = call.excinfo.value
            if isinstance(raised, SystemExit):
                return _exit_report(collector, raised)
        return report


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

    def __init__(self, limit: float) -> None:
        self._limit = limit

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
                ending = self._try(collector, files)
                if isinstance(ending, Finished):
                    return None
                return _error(collector, ending, files)
            finally:
                files.close()
        except OSError as error:
            if not is_refusal(error):
                raise
            return _failed(collector, f"no process to try it in: {refusal(error)}", [], [])

    def _try(self, collector: pytest.File, files: Files) -> Ending:
        flush()
        worker = os.getpid()
        statuses = Statuses()
        with statuses:
            pid = fork()
            if pid == 0:
                statuses.leave()
                _collect_and_leave(collector, files, worker)
            status = _wait(pid, self._limit, files)
        if status is None:
            return TimedOut(self._limit)
        if read_from(files.events) == _SURVIVED:
            return Finished()
        return from_wait_status(status)


def _collect_and_leave(collector: pytest.File, files: Files, worker: int) -> NoReturn:
    status = 1
    try:
        os.setpgid(0, 0)
        system.die_with_parent(worker)
        files.install()
        os.dup2(slots.out, 1)
        os.dup2(slots.err, 2)
        faulthandler.enable(file=slots.dump)
        faulthandler.register(signal.SIGTERM, file=slots.dump, all_threads=True, chain=True)
        # The worker meets, and reports, errors when it imports the file itself.
        with suppress(BaseException):
            list(collector.collect())
        os.write(slots.events, _SURVIVED)
    finally:
        os._exit(status)


def _wait(pid: int, limit: float, files: Files) -> int | None:
    """Wait for the process; its status, None if it had to be killed."""
    deadline = time.monotonic() + limit if limit else float("inf")
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        if time.monotonic() > deadline:
            _end(pid)
            return None
        free_middle(files.out)
        free_middle(files.err)
        select.select([], [], [], 0.002)


def _end(pid: int) -> None:
    tree = (pid, *system.descendants(pid))
    os.kill(pid, signal.SIGTERM)  # faulthandler writes the stacks
    deadline = time.monotonic() + _DUMP_WAIT
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            break
        select.select([], [], [], 0.002)
    for process in tree[1:]:
        send_signal(process, signal.SIGKILL)


def _error(collector: pytest.File, ending: Ending, files: Files) -> pytest.CollectReport:
    rootdir = collector.config.rootpath
    dump = read_ends(files.dump).decode("utf-8", "replace")
    frame = innermost_frame(dump, rootdir)
    where = f" at {frame.path}:{frame.line} in {frame.name}" if frame is not None else ""
    headline = f"{ending.title}{where}"
    # xdist shows an error once if all workers report the same text: no addresses of threads.
    stacks = re.sub(r"(?<=hread 0x)[0-9a-f]+", "0", reorder_stacks(dump))
    before = (_first_line(headline, collector), "")
    crash = CrashReport(ending.title, before, stacks, (), origins(collector.config))
    sections = [
        (f"Captured {name}", text.decode("utf-8", "replace"))
        for name, text in (("stdout", read_ends(files.out)), ("stderr", read_ends(files.err)))
        if text
    ]
    text = crash.text.rstrip()
    return _report(collector, text, sections, death=headline, crash=crash.to_wire())


def _exit_report(collector: pytest.Collector, error: SystemExit) -> pytest.CollectReport:
    path, line = _where(error, collector.config.rootpath)
    headline = f"SystemExit: {error.code} at {path}:{line}"
    text = str(collector.repr_failure(pytest.ExceptionInfo.from_exc_info(_triple(error))))
    return _failed(collector, headline, [text], [])


def _failed(
    collector: pytest.Collector, headline: str, lines: list[str], sections: list[tuple[str, str]]
) -> pytest.CollectReport:
    text = "\n".join([_first_line(headline, collector), "", *lines])
    return _report(collector, text.rstrip(), sections, death=headline)


def _first_line(headline: str, collector: pytest.Collector) -> str:
    """The one that pytest's short summary shows."""
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


def _triple(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType]:
    assert error.__traceback__ is not None
    return type(error), error, error.__traceback__
