"""NVIDIA's GPUs of this machine are looked at while tests run, by a process of its own."""

from __future__ import annotations

import json
from typing import Any, Generator, Mapping

import pytest

from ... import system
from ...gpu.interpreters import light_interpreter
from ...gpu.machine import Machine
from ...journal.events import event
from ...journal.recorder import Recorder
from ...own import fcntl, os, own_builtins, subprocess
from ...protocol.descriptors import move_up
from .run_event import RunGpus

own_builtins(globals())

_END = 2.0
"""Seconds for the process to be gone after SIGKILL; what the driver holds then is left alone."""


class GpuSamples:
    """Plugin of the process that owns the terminal.

    The file in between is read when a test is over. A pipe would be full in the meantime, and a
    thread that reads it is not there to be had at ``-n0``, where this process is forked.

    :param uuids: by id of a GPU.
    """

    def __init__(self, recorder: Recorder, uuids: Mapping[str, str]) -> None:
        self._recorder = recorder
        self._uuids = uuids
        self._file = -1
        self._process: subprocess.Popen[bytes] | None = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Have them looked at meanwhile."""
        self._start()
        try:
            return (yield)
        finally:
            self._stop()

    def _start(self) -> None:
        machine = Machine.here()
        self._file = move_up(system.anonymous_file("gpus"))
        fcntl.fcntl(self._file, fcntl.F_SETFL, os.O_APPEND)
        arguments = (machine.root, str(self._file), str(os.getpid()), *self._uuids.values())
        function = "pytest_fkit.gpu.vendors.nvml:sample"
        self._process = subprocess.Popen(
            light_interpreter(function, *arguments),
            env=machine.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[self._file],
            start_new_session=True,  # to spare it Ctrl-C
        )
        self._recorder.looks.append(self.read)

    def _stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._process.returncode = 0  # nobody is going to wait for it
        self.read()
        self._recorder.looks.remove(self.read)
        os.close(self._file)

    def read(self) -> None:
        """Hand over what was seen since the last time."""
        size = os.fstat(self._file).st_size
        if not size:
            return
        data = os.pread(self._file, size, 0)
        # What is written in between is lost: one sample.
        os.ftruncate(self._file, 0)
        for line in data.splitlines():
            self._take(json.loads(line))

    def _take(self, said: dict[str, Any]) -> None:
        if "error" in said:
            self._recorder.add(event("gpus_unknown", error=said["error"]))
            return
        figures = ([-1 if one is None else one for one in each] for each in said["used"])
        seen = {gpu: (memory, busy) for gpu, (memory, busy) in zip(self._uuids, figures)}
        self._recorder.gpus_used(said["wall"], said["mono"], seen)


def sample_gpus(config: pytest.Config, recorder: Recorder, gpus: RunGpus) -> None:
    """Have GPUs that workers of this machine own looked at, where NVML can be asked."""
    owned = {gpu for ids in gpus.slices.values() for gpu in ids}
    uuids = {
        each["id"]: each["uuid"]
        for each in gpus.devices
        if each["vendor"] == "nvidia" and each["id"] in owned and "uuid" in each
    }
    if uuids and not Machine.here().lacks_library("libnvidia-ml.so.1"):
        config.pluginmanager.register(GpuSamples(recorder, uuids), "fkit-gpu-samples")
