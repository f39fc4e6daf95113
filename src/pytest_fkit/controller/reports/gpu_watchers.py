"""Processes that watch NVIDIA's GPUs of this machine while tests run, for Xids and usage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Generator, Mapping, Sequence

import pytest

from ... import system
from ...gpu.devices import Device
from ...gpu.health.xids import XidFile, without_doubles
from ...gpu.interpreters import light_interpreter
from ...gpu.machine import Machine
from ...gpu.slices.ownership import GPUS_TOLD, XIDS, XIDS_TOLD, XidsHere
from ...journal.events import Event, event
from ...own import fcntl, os, own_builtins, subprocess, suppress
from ...protocol.descriptors import move_up
from ..schedule.machines import machine_of

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from ...journal.recorder import Recorder

own_builtins(globals())

_NVML = "libnvidia-ml.so.1"
_KERNEL_LOG = "dev/kmsg"

_KILL_WAIT = 2.0
"""Seconds for a process to be gone after SIGKILL; one that is stuck in the driver is abandoned."""


def _output_file(name: str) -> int:
    """An anonymous file to which watchers append."""
    descriptor = move_up(system.anonymous_file(name))
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    return descriptor


def _start(machine: Machine, command: Sequence[str], output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        env=machine.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[output],
        start_new_session=True,  # to spare it Ctrl-C
    )


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        try:
            process.wait(_KILL_WAIT)
        except subprocess.TimeoutExpired:
            process.returncode = 0  # lest Popen warns that nobody waited for it


class XidReaders:
    """Plugin of the process that owns the terminal: has the driver's Xids written to a file."""

    def __init__(
        self, config: pytest.Config, recorder: Recorder | None, devices: Mapping[str, Device]
    ) -> None:
        self._config = config
        self._recorder = recorder
        self._devices = devices
        self._processes: list[subprocess.Popen[bytes]] = []
        self._file: XidFile | None = None
        self._here: XidsHere | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Start the readers, before workers are started."""
        machine = Machine.here()
        readers = []
        if not machine.lacks_library(_NVML):
            readers.append("read_nvml")
        if _is_readable(machine.path(_KERNEL_LOG)):
            readers.append("read_kernel_log")
        if not readers:
            return
        gpus = [(id_, each.uuid, each.pci, each.parent) for id_, each in self._devices.items()]
        with suppress(OSError):
            output = _output_file("xids")
            path = f"/proc/{os.getpid()}/fd/{output}"
            self._here = self._config.stash[XIDS] = XidsHere(path, output)
            for name in readers:
                command = light_interpreter(
                    f"pytest_fkit.gpu.health.xid_reader:{name}",
                    str(output), str(os.getpid()), json.dumps(gpus),
                )  # fmt: skip
                self._processes.append(_start(machine, command, output))
        if self._here is not None and self._recorder is not None:
            self._file = XidFile(self._here.path)
            self._recorder.samplers.append(self.read)

    # After the plugin that says on which machine a worker is.
    @pytest.hookimpl(optionalhook=True, trylast=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        told = node.workerinput
        if self._here is not None and GPUS_TOLD in told and not machine_of(node):
            told[XIDS_TOLD] = self._here.path

    def read(self) -> None:
        if self._file is None or self._recorder is None:
            return
        for each in without_doubles(self._file.read()):
            self._recorder.xid(each.wall, each.mono, each.facts())

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Record the last ones before the end is recorded."""
        self.read()
        if self._recorder is not None:
            self._recorder.commit()

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        _kill(self._processes)
        self._processes = []
        if self._here is not None:
            os.close(self._here.descriptor)
            self._here = None


def _is_readable(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(descriptor)
    return True


class GpuSamples:
    """Plugin of the process that owns the terminal: samples the usage of GPUs while tests run.

    The sampler writes to a file, which is read when a test has ended: a pipe would fill up in the
    meantime, and a thread that reads it would be in the way of ``-n0``, where this process is
    forked.

    :param uuids: by id of a GPU.
    """

    def __init__(self, recorder: Recorder, uuids: Mapping[str, str]) -> None:
        self._recorder = recorder
        self._uuids = uuids
        self._file = -1

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        machine = Machine.here()
        self._file = _output_file("gpus")
        function = "pytest_fkit.gpu.vendors.nvml:sample"
        arguments = (machine.root, str(self._file), str(os.getpid()), *self._uuids.values())
        command = light_interpreter(function, *arguments)
        process = _start(machine, command, self._file)
        self._recorder.samplers.append(self.read)
        try:
            return (yield)
        finally:
            _kill([process])
            self.read()
            self._recorder.samplers.remove(self.read)
            os.close(self._file)

    def read(self) -> None:
        size = os.fstat(self._file).st_size
        if not size:
            return
        data = os.pread(self._file, size, 0)
        # A sample that is written in between is lost.
        os.ftruncate(self._file, 0)
        for line in data.splitlines():
            self._record(json.loads(line))

    def _record(self, sample: Event) -> None:
        if "error" in sample:
            self._recorder.add(event("gpus_unknown", error=sample["error"]))
            return
        names = ("memory", "utilisation")
        usage = {
            gpu: {name: figure for name, figure in zip(names, figures) if figure is not None}
            for gpu, figures in zip(self._uuids, sample["used"])
        }
        self._recorder.gpus_used(sample["wall"], sample["mono"], usage)


def sample_gpus(config: pytest.Config, recorder: Recorder, uuids: Mapping[str, str]) -> None:
    if not Machine.here().lacks_library(_NVML):
        config.pluginmanager.register(GpuSamples(recorder, uuids), "fkit-gpu-samples")
