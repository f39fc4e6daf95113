"""Xids of NVIDIA's GPUs of this machine are read while a run goes on, by processes of their own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Mapping

import pytest

from ... import system
from ...gpu.devices import Device
from ...gpu.health.xids import XidFile, without_doubles
from ...gpu.interpreters import light_interpreter
from ...gpu.machine import Machine
from ...gpu.slices.ownership import XIDS, XIDS_TOLD, XidsHere
from ...own import fcntl, os, own_builtins, subprocess, suppress
from ...protocol.descriptors import move_up
from ..schedule.machines import host_of

if TYPE_CHECKING:
    from ...journal.recorder import Recorder

own_builtins(globals())

_END = 2.0
"""Seconds for a process to be gone after SIGKILL; what the driver holds then is left alone."""

_LOG = "dev/kmsg"


class XidReaders:
    """Plugin of the process that owns the terminal.

    :param recorder: hears of all Xids, if there is one.
    :param devices: by id, those that the run may use.
    """

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
        """Have them read from now on, before workers are started."""
        machine = Machine.here()
        functions = []
        if not machine.lacks_library("libnvidia-ml.so.1"):
            functions.append("read_nvml")
        if _may_be_read(machine.path(_LOG)):
            functions.append("read_kernel_log")
        if not functions:
            return
        with suppress(OSError):
            descriptor = move_up(system.anonymous_file("xids"))
            fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
            path = f"/proc/{os.getpid()}/fd/{descriptor}"
            self._here = self._config.stash[XIDS] = XidsHere(path, descriptor)
            for each in functions:
                self._processes.append(self._start(machine, descriptor, each))
        if self._here is not None and self._recorder is not None:
            self._file = XidFile(self._here.path)
            self._recorder.looks.append(self.read)

    def _start(self, machine: Machine, descriptor: int, name: str) -> subprocess.Popen[bytes]:
        gpus = [(id_, each.uuid, each.pci, each.parent) for id_, each in self._devices.items()]
        arguments = str(descriptor), str(os.getpid()), json.dumps(gpus)
        return subprocess.Popen(
            light_interpreter(f"pytest_fkit.gpu.health.xid_reader:{name}", *arguments),
            env=machine.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[descriptor],
            start_new_session=True,  # to spare it Ctrl-C
        )

    # After those that say on which machine it is.
    @pytest.hookimpl(optionalhook=True, trylast=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of this machine that owns GPUs where to look."""
        told = node.workerinput
        if self._here is not None and "fkit_gpus" in told and not host_of(node):
            told[XIDS_TOLD] = self._here.path

    def read(self) -> None:
        """Have recorded what is new."""
        if self._file is None or self._recorder is None:
            return
        for each in without_doubles(self._file.read()):
            self._recorder.xid(each.wall, each.mono, each.facts())

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """The last ones, before the end is recorded."""
        self.read()
        if self._recorder is not None:
            self._recorder.commit()

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """End what reads."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            try:
                process.wait(_END)
            except subprocess.TimeoutExpired:
                process.returncode = 0  # nobody is going to wait for it
        self._processes = []
        if self._here is not None:
            os.close(self._here.descriptor)
            self._here = None


def _may_be_read(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(descriptor)
    return True


def read_xids(
    config: pytest.Config, recorder: Recorder | None, devices: Mapping[str, Device]
) -> None:
    """Have them read.

    :param devices: by id, NVIDIA's GPUs of this machine that the run may use.
    """
    config.pluginmanager.register(XidReaders(config, recorder, devices), "fkit-xids")
