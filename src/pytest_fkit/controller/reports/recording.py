"""The journal, the trace and the lists of expensive tests of the process that owns the terminal."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Callable, Generator, Iterator, Sequence

import pytest

from ...config.settings import ALONE, Settings
from ...journal.aside import command_to_resume, set_aside
from ...journal.events import encode, event
from ...journal.files import AppendedFile, InUseError
from ...journal.recorder import Recorder
from ...journal.trace_file import TraceFile
from ...own import contextmanager, os, own_builtins
from ...protocol.endings import Lost, to_wire
from .accounting import lost_facts
from .gpu_samples import sample_gpus
from .resume import Resume, Resuming, resumed
from .run_event import gpus_of_run, run_event
from .top import Top

own_builtins(globals())


class Recording:
    """Plugin: tells the recorder what is no test, and looks after its files.

    :param resume: the run to resume, if there is one.
    :param say: has the user read a line.
    """

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        recorder: Recorder,
        resume: Resume | None,
        say: Callable[[str], None],
    ) -> None:
        self._config = config
        self._settings = settings
        self._recorder = recorder
        self._resume = resume
        self._say = say
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
            keep: Callable[[bytes], int] = _nothing
            if self._resume is not None:
                keep = self._resume.keep
                if not settings.journal.exists():
                    name = self._shown(settings.journal)
                    self._say(f"there is no {name} to go on with: this run begins it")
            else:
                self._set_aside(settings.journal)
            sinks.append(_journal(self._open("journal", settings.journal, keep)))
        if settings.trace is not None:
            self._trace = TraceFile(self._open("trace", settings.trace, _nothing))
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
        with _usage_errors(option, path):
            file = AppendedFile.open(path, keep)
        self._files.append(file)
        return file

    def _set_aside(self, journal: Path) -> None:
        with _usage_errors("journal", journal):
            aside = set_aside(journal)
        if aside is None:
            return
        was, now = self._shown(journal), self._shown(aside.path)
        if aside.run is None:
            self._say(f"{was} was no journal that can be read here; it is {now} now")
            return
        directory = str(aside.run.get("directory", ""))
        there = directory == str(self._config.invocation_params.dir)
        command = command_to_resume(
            aside.run.get("arguments", ()),
            now if there else str(aside.path),
            elsewhere=self._config.getoption("fkit_journal") is not None,
        )
        enter = "" if there else f"cd {shlex.quote(directory)} && "
        self._say(
            f"the run in {was} did not end; its journal is {now} now, and this goes on with it: "
            f"{enter}{command}"
        )

    def _shown(self, path: Path) -> str:
        """As it is named from where the command was given."""
        here = str(self._config.invocation_params.dir)
        text = os.path.relpath(path.resolve(), here)
        return str(path) if text.startswith("..") else text

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
        self._recorder.attempt(worker, crashitem, lost_facts(lost), 0)
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


def record(
    config: pytest.Config, settings: Settings, say: Callable[[str], None]
) -> tuple[Recorder, Resuming | None]:
    """Start the recorders that the user asked for, and resume the run that she named.

    :param say: has the user read a line, before the run begins.
    :return: who is to be told of all tests, and of what workers collected, if that matters.
    :raises pytest.UsageError: if the run can't be resumed.
    """
    recorder = Recorder()
    plugins = config.pluginmanager
    resume = resumed(config, settings)
    plugins.register(Recording(config, settings, recorder, resume, say), "fkit-recording")
    if resume is None:
        return recorder, None
    resuming = Resuming(config, resume, recorder)
    plugins.register(resuming, "fkit-resuming")
    return recorder, resuming


def _journal(file: AppendedFile) -> Any:
    return lambda events: file.write(b"".join([encode(each) for each in events]))


def _nothing(_: bytes) -> int:
    return 0


@contextmanager
def _usage_errors(option: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"pytest-fkit: --fkit-{option}: {path}: {error.strerror}"
        raise pytest.UsageError(text) from None
    except InUseError as error:
        raise pytest.UsageError(f"pytest-fkit: --fkit-{option}: {error}") from None
