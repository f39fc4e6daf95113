"""Modules whose import kills the process: tried in a process of their own first.

Only in a worker that replaces one that died during collection; nobody else pays for it.
"""

from __future__ import annotations

import faulthandler
import os
import re
import select
import signal
import sys
import time
from typing import NoReturn

import pytest

from .. import system
from ..endings import Ending, Finished, TimedOut, from_wait_status
from ..sandbox.copies import fork
from ..sandbox.descriptors import DUMP, ERR, EVENTS, OUT, Files, read_from
from .deaths import innermost_frame, reorder_stacks

_SURVIVED = b"survived"


class CarefulCollection:
    """Plugin of a worker that has to expect that an import kills it.

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
        files = Files.create()
        try:
            ending = self._try(collector, files)
            if isinstance(ending, Finished):
                return None
            return _error(collector, ending, files)
        finally:
            files.close()

    def _try(self, collector: pytest.File, files: Files) -> Ending:
        sys.stdout.flush()
        sys.stderr.flush()
        worker = os.getpid()
        pid = fork()
        if pid == 0:
            _collect_and_leave(collector, files, worker)
        status = _wait(pid, self._limit)
        if status is None:
            return TimedOut(self._limit)
        if read_from(files.events) == _SURVIVED:
            return Finished()
        return from_wait_status(status)


def _collect_and_leave(collector: pytest.File, files: Files, worker: int) -> NoReturn:
    status = 1
    try:
        os.setsid()
        system.die_with_parent(worker)
        files.install()
        os.dup2(OUT, 1)
        os.dup2(ERR, 2)
        faulthandler.enable(file=DUMP)
        try:
            list(collector.collect())
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:  # noqa: BLE001 (an error that the worker survives, and reports)
            os.write(EVENTS, _SURVIVED)
        else:
            os.write(EVENTS, _SURVIVED)
    finally:
        os._exit(status)


def _wait(pid: int, limit: float) -> int | None:
    """The status of the process, None if it had to be killed."""
    deadline = time.monotonic() + limit if limit else float("inf")
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        if time.monotonic() > deadline:
            for process in (pid, *system.descendants(pid)):
                os.kill(process, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        select.select([], [], [], 0.002)


def _error(collector: pytest.File, ending: Ending, files: Files) -> pytest.CollectReport:
    rootdir = collector.config.rootpath
    # xdist shows an error once if all workers report the same text: no addresses of threads.
    dump = re.sub(r"hread 0x[0-9a-f]+", "hread", read_from(files.dump).decode("utf-8", "replace"))
    frame = innermost_frame(dump, rootdir)
    where = f" at {frame.path}:{frame.line} in {frame.name}" if frame is not None else ""
    headline = f"{ending.title}{where}"
    lines = [f"importing {collector.nodeid} ended the process: {headline}"]
    if dump.strip():
        lines += ["", "Python stacks at that moment:", reorder_stacks(dump)]
    sections = [
        (f"Captured {name}", text.decode("utf-8", "replace"))
        for name, text in (("stdout", read_from(files.out)), ("stderr", read_from(files.err)))
        if text
    ]
    return pytest.CollectReport(
        collector.nodeid, "failed", "\n".join(lines), [], sections, fkit_death=headline
    )
