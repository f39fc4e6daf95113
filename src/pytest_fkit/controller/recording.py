"""The journal, the trace and the lists of expensive tests of the process that owns the terminal."""

from __future__ import annotations

from typing import Any, Generator, Sequence

import pytest

from ..endings import Lost, to_wire
from ..journal.events import encode, event
from ..journal.files import AppendedFile, InUseError
from ..journal.recorder import Recorder
from ..journal.trace_file import TraceFile
from ..own import own_builtins, time
from ..settings import ALONE, Settings
from .gpu_samples import sample_gpus
from .resume import Resume, Resuming, resumed
from .run_event import gpus_of_run, run_event
from .top import Top

own_builtins(globals())


class Recording:
    """Plugin: tells the recorder what is no test, and looks after its files.

    :param resume: the run that is gone on with, if there is one.
    """

    def __init__(
        self, config: pytest.Config, settings: Settings, recorder: Recorder, resume: Resume | None
    ) -> None:
        self._config = config
        self._settings = settings
        self._recorder = recorder
        self._resume = resume
        self._files: list[AppendedFile] = []
        self._trace: TraceFile | None = None
        self._collected = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Open the files.

        :raises pytest.UsageError: if that can't be.
        """
        settings, sinks = self._settings, self._recorder.sinks
        if settings.journal is not None:
            keep = self._resume.keep if self._resume is not None else lambda _: 0
            sinks.append(_journal(self._open("journal", settings.journal, keep)))
        if settings.trace is not None:
            self._trace = TraceFile(self._open("trace", settings.trace, lambda _: 0))
            sinks.append(self._trace.take)
        if settings.top:
            top = Top(settings.top)
            sinks.append(top.take)
            self._config.pluginmanager.register(top, "fkit-top")
        session = self._resume.session if self._resume is not None else ""
        gpus = gpus_of_run(self._config)
        for worker, ids in gpus.slices.items():
            self._recorder.owns(worker, ids)
        if settings.journal is not None or settings.trace is not None:
            sample_gpus(self._config, self._recorder, gpus)
        self._recorder.add(run_event(self._config, settings, gpus, session))

    def _open(self, option: str, path: Any, keep: Any) -> AppendedFile:
        try:
            file = AppendedFile.open(path, keep)
        except OSError as error:
            text = f"pytest-fkit: --fkit-{option}: {path}: {error.strerror}"
            raise pytest.UsageError(text) from None
        except InUseError as error:
            raise pytest.UsageError(f"pytest-fkit: --fkit-{option}: {error}") from None
        self._files.append(file)
        return file

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self, node: Any) -> None:
        """Record it."""
        told = node.workerinput
        gpus = told.get("fkit_gpus", {}).get("ids", [])
        self._recorder.worker_up(node.gateway.id, told.get("fkit_pid", 0), gpus)

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """Record it."""
        text = None if error is None else str(error)
        self._recorder.add(event("worker_down", worker=node.gateway.id, error=text))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        """Record it."""
        self._collection(node.gateway.id, [str(nodeid) for nodeid in ids])

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Record it, at ``-n0``."""
        self._collection(ALONE, [item.nodeid for item in session.items])

    def _collection(self, worker: str, nodeids: list[str]) -> None:
        # They are the same in all workers.
        which: dict[str, Any] = {} if self._collected else {"nodeids": nodeids}
        self._collected = True
        self._recorder.add(event("collection", worker=worker, tests=len(nodeids), **which))

    @pytest.hookimpl(optionalhook=True, trylast=True)
    def pytest_handlecrashitem(self, crashitem: str, report: Any) -> None:
        """Record the verdict on the test that a dead worker was running."""
        worker = report.node.gateway.id
        self._recorder.report(worker, report)
        lost = to_wire(Lost(f"worker {worker} died"))
        self._recorder.attempt(worker, crashitem, _facts_of_lost(lost), 0)
        self._recorder.commit()

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Record the end."""
        self._recorder.add(event("end", exitstatus=int(exitstatus)))

    @pytest.hookimpl(wrapper=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> Generator[None, object, object]:
        """Say which file is not complete."""
        result = yield
        for file in self._files:
            if file.failure:
                text = f"pytest-fkit: {file.path} is not complete: {file.failure}"
                terminalreporter.line(text, red=True)
        return result

    def pytest_unconfigure(self) -> None:
        """Close the files."""
        if self._trace is not None:
            self._trace.write()  # what is there, if the run did not get to its end
        for file in self._files:
            file.close()


def record(config: pytest.Config, settings: Settings) -> tuple[Recorder, Resuming | None]:
    """Have recorded what is asked for, and gone on with what was recorded.

    :return: who is to be told of all tests, and of what workers collected, if that matters.
    :raises pytest.UsageError: if the run can't be gone on with.
    """
    recorder = Recorder()
    plugins = config.pluginmanager
    resume = resumed(config, settings)
    plugins.register(Recording(config, settings, recorder, resume), "fkit-recording")
    if resume is None:
        return recorder, None
    resuming = Resuming(config, resume, recorder)
    plugins.register(resuming, "fkit-resuming")
    return recorder, resuming


def _journal(file: AppendedFile) -> Any:
    return lambda events: file.write(b"".join([encode(each) for each in events]))


def _facts_of_lost(ending: tuple[Any, ...]) -> dict[str, Any]:
    return {
        "start": time.time(), "phases": (), "wide": (), "ending": ending, "pid": 0, "used": (),
        "shared": "", "metrics": {}, "leftovers": (),
    }  # fmt: skip
