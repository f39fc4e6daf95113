"""The journal, the trace and the lists of expensive tests, where the terminal is owned."""

from __future__ import annotations

import heapq
import platform
import shlex
import sys
import uuid
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Callable,
    Collection,
    Generator,
    Iterator,
    Mapping,
    Sequence,
    Tuple,
)

import pluggy
import psutil
import pytest
import xdist

from ... import __version__
from ...config.settings import ALONE, Settings
from ...gpu.vendors.vendor import Entry
from ...journal.events import FORMAT, SCHEMA, Event, encode, event
from ...journal.files import AppendedFile, InUseError, command_to_resume, set_aside
from ...journal.masking import of_environment
from ...journal.recorder import Recorder
from ...journal.trace import TraceFile
from ...own import contextmanager, os, own_builtins, socket
from ...protocol.endings import Lost, format_size
from ..schedule.machines import clock_ahead, gpu_ids, machine_of
from .accounting import lost_attempt
from .origin import drivers, origin, package_versions
from .resume import Resuming

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

own_builtins(globals())

GpusOfRun = Tuple[Sequence[Entry], Mapping[str, Sequence[str]]]
"""Those of this machine that a run may use, and the ids of each local worker's."""


class Recording:
    """Plugin: records what is not about a test, and owns the files.

    :param resuming: reads the journal of the run to resume, if there is one.
    """

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        recorder: Recorder,
        resuming: Resuming | None,
        gpus: GpusOfRun,
        say: Callable[[str], None],
    ) -> None:
        self._config = config
        self._settings = settings
        self._recorder = recorder
        self._resuming = resuming
        self._gpus = gpus
        self._say = say
        self._files: list[AppendedFile] = []
        self._trace: TraceFile | None = None
        self._collected = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Open the files, and record the begin of the run.

        :raises pytest.UsageError: if they can't be opened.
        """
        settings, recorder = self._settings, self._recorder
        recorder.mask = of_environment(os.environ, settings.mask).event
        session = ""
        if settings.journal is not None:
            journal = self._open_journal(settings.journal)
            recorder.sinks.append(lambda events: journal.write(b"".join(map(encode, events))))
            session = "" if self._resuming is None else self._resuming.session
        if settings.trace is not None:
            self._trace = TraceFile(self._open("trace", settings.trace))
            recorder.sinks.append(self._trace.add)
        if settings.top:
            top = Top(settings.top)
            recorder.sinks.append(top.add)
            self._config.pluginmanager.register(top, "fkit-top")
        entries, slices = self._gpus
        devices = list(map(_device, entries))
        for worker, ids in slices.items():
            recorder.owns(worker, ids)
        if settings.journal is not None or settings.trace is not None:
            self._sample_gpus(devices, {gpu for ids in slices.values() for gpu in ids})
        recorder.add(_run_event(self._config, settings, devices, slices, session))

    def _sample_gpus(self, devices: Sequence[Event], owned: Collection[str]) -> None:
        uuids = {
            each["id"]: each["uuid"]
            for each in devices
            if each["vendor"] == "nvidia" and each["id"] in owned and "uuid" in each
        }
        if uuids:  # most machines spare the import
            from .gpu_watchers import sample_gpus

            sample_gpus(self._config, self._recorder, uuids)

    def _open_journal(self, path: Path) -> AppendedFile:
        if self._resuming is None:
            self._set_aside(path)
            return self._open("journal", path)
        if not path.exists():
            self._say(f"there is no {self._shown(path)} to resume: this run creates it")
        return self._open("journal", path, self._resuming.keep)

    def _open(
        self, option: str, path: Path, keep: Callable[[bytes], int] = lambda _: 0
    ) -> AppendedFile:
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
            self._say(f"{was} was not a journal that can be read; it is now {now}")
            return
        if aside.run.get("options", {}).get("repeat"):  # no other run goes on with its rates
            self._say(f"the run in {was} did not end; its journal is now {now}")
            return
        directory = str(aside.run.get("directory", ""))
        is_here = directory == str(self._config.invocation_params.dir)
        command = command_to_resume(
            aside.run.get("arguments", ()),
            now if is_here else str(aside.path),
            elsewhere=self._config.getoption("fkit_journal") is not None,
        )
        enter = "" if is_here else f"cd {shlex.quote(directory)} && "
        self._say(
            f"the run in {was} did not end; its journal is now {now}; to resume it: "
            f"{enter}{command}"
        )

    def _shown(self, path: Path) -> str:
        """The path relative to where the command was given, if it lies below."""
        here = str(self._config.invocation_params.dir)
        text = os.path.relpath(path.resolve(), here)
        return str(path) if text.startswith("..") else text

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self, node: WorkerController) -> None:
        pid = node.workerinput.get("fkit_pid", 0)
        self._recorder.worker_up(
            node.gateway.id, pid, gpu_ids(node), machine_of(node), clock_ahead(node)
        )

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_testnodedown(self, node: WorkerController, error: object | None) -> None:
        text = None if error is None else str(error)
        self._recorder.add(event("worker_down", worker=node.gateway.id, error=text))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(
        self, node: WorkerController, ids: Sequence[str]
    ) -> None:
        self._collection(node.gateway.id, [str(nodeid) for nodeid in ids])

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._collection(ALONE, [item.nodeid for item in session.items])

    def _collection(self, worker: str, nodeids: list[str]) -> None:
        # Name the tests once: they are the same in all workers.
        which: Event = {} if self._collected else {"nodeids": nodeids}
        self._collected = True
        self._recorder.add(event("collection", worker=worker, tests=len(nodeids), **which))

    @pytest.hookimpl(optionalhook=True, trylast=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        worker = report.node.gateway.id
        self._recorder.report(worker, report)
        self._recorder.record(worker, [lost_attempt(crashitem, Lost(f"worker {worker} died"))])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self._recorder.add(event("end", exitstatus=int(exitstatus)))

    @pytest.hookimpl(wrapper=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> Generator[None, object, object]:
        result = yield
        for file in self._files:
            if file.failure:
                text = f"pytest-fkit: {file.path} is not complete: {file.failure}"
                terminalreporter.line(text, red=True)
        return result

    def pytest_unconfigure(self) -> None:
        if self._trace is not None:
            self._trace.flush()  # if the run did not get to its end
        for file in self._files:
            file.close()


def record(
    config: pytest.Config, settings: Settings, gpus: GpusOfRun, say: Callable[[str], None]
) -> tuple[Recorder, Resuming | None]:
    """Record what the user asked for, and resume the run that she named.

    :return: who has to hear of all tests and, in a resumed run, of what workers collected.
    :raises pytest.UsageError: if the run can't be resumed.
    """
    recorder = Recorder()
    plugins = config.pluginmanager
    path = settings.resume
    resuming = None if path is None else Resuming(config, path, recorder)
    plugins.register(Recording(config, settings, recorder, resuming, gpus, say), "fkit-recording")
    if settings.html is not None and settings.journal is not None:
        from .html_report import HtmlReport

        # After the one that writes the journal's last line.
        plugins.register(HtmlReport(settings.journal, settings.html), "fkit-html")
    if resuming is not None:
        plugins.register(resuming, "fkit-resuming")
    return recorder, resuming


@contextmanager
def _usage_errors(option: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"pytest-fkit: --fkit-{option}: {path}: {error.strerror}"
        raise pytest.UsageError(text) from None
    except InUseError as error:
        raise pytest.UsageError(f"pytest-fkit: --fkit-{option}: {error}") from None


# --- the event that begins a run ---


def _device(entry: Entry) -> Event:
    device = entry.device
    known = {
        "id": entry.id, "vendor": device.vendor, "name": device.name, "uuid": device.uuid,
        "pci": device.pci, "memory": device.memory,
    }  # fmt: skip
    return {name: value for name, value in known.items() if value}


def _run_event(
    config: pytest.Config,
    settings: Settings,
    devices: Sequence[Event],
    slices: Mapping[str, Sequence[str]],
    session: str,
) -> Event:
    """The ``run`` event.

    :param session: that of the resumed run, or "".
    """
    number = uuid.uuid4().hex[:16]
    options = {
        name: value if value is None or isinstance(value, (int, float)) else str(value)
        for name, value in settings._asdict().items()
    }
    of_devices = drivers(str(each["vendor"]) for each in devices)
    return event(
        "run",
        format=FORMAT,
        schema=SCHEMA,
        id=number,
        session=session or number,
        pid=os.getpid(),
        arguments=[str(each) for each in config.invocation_params.args],
        directory=str(config.invocation_params.dir),
        rootdir=str(config.rootpath),
        versions={
            "pytest-fkit": __version__,
            "pytest": pytest.__version__,
            "xdist": xdist.__version__,
            "pluggy": pluggy.__version__,
            "python": platform.python_version(),
            **package_versions(settings.versions),
        },
        **origin(str(config.rootpath)),
        **({"drivers": of_devices} if of_devices else {}),
        options={**options, "dist": config.getoption("dist", "no")},
        devices=devices,
        slices=slices,
        machine={
            "host": socket.gethostname(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "cpus": os.cpu_count(),
            "memory": psutil.virtual_memory().total,
            "python": sys.executable,
        },
    )


class Top:
    """Plugin and sink of the recorder: lists the tests that took the most memory and CPU time."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._memory: list[tuple[float, str]] = []
        self._cpu: list[tuple[float, str]] = []

    def add(self, events: Sequence[Event]) -> None:
        for happened in events:
            if happened["event"] == "attempt" and "user" in happened:
                nodeid = str(happened["test"])
                self._enter(self._memory, happened["peak_memory"], nodeid)
                self._enter(self._cpu, happened["user"] + happened["system"], nodeid)

    def _enter(self, heap: list[tuple[float, str]], value: float, nodeid: str) -> None:
        push = heapq.heappush if len(heap) < self._number else heapq.heappushpop
        push(heap, (value, nodeid))

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for what, heap, show in (
            ("peak memory", self._memory, format_size),
            ("CPU time", self._cpu, lambda seconds: f"{seconds:.3f} s"),
        ):
            if heap:
                terminalreporter.write_sep("=", f"fkit: top {len(heap)} by {what}")
                for value, nodeid in sorted(heap, key=lambda each: (-each[0], each[1])):
                    terminalreporter.line(f"{show(value):>10}  {nodeid}")
