"""How a worker asks a process how much memory of its GPUs is in use; it may never answer."""

from __future__ import annotations

import json
from typing import Collection, Sequence

import pytest

from ... import system
from ...config.settings import SETTINGS
from ...own import os, own_builtins, select, signal, subprocess, suppress, time
from ...protocol.descriptors import move_up
from ...protocol.wire import Packer, cut, unpack
from ..interpreters import light_interpreter
from ..machine import Machine
from ..slices.ownership import Owned
from ..vendors.detection import VENDORS
from .memory_reader import MESSAGES, CannotAnswer, MemoryAnswer, MemoryRequest

own_builtins(globals())

GRACE = 10.0
"""Seconds that an answer may take beyond those for which memory is waited for."""

_SIGN = "memory_reader"
"""A word in the process's command line."""

_END = 1.0
"""Seconds for the process to be gone."""


class GpuMemory:
    """The process to ask, see memory_reader.py. Forked copies of the worker may ask it, too.

    :param requests: the descriptor to write to; `answers`: to read from.
    """

    def __init__(
        self, pid: int, requests: int, answers: int, ids: Sequence[str], seconds: float
    ) -> None:
        self._pid = pid
        self._requests = requests
        self._answers = answers
        # The suite may close them in the worker, and open others under the same numbers.
        self._files = {each: _file_of(each) for each in (requests, answers)}
        self.ids = tuple(ids)
        self.seconds = seconds
        self._data = bytearray()
        self._asked = 0
        self._wanted = ""
        self._deadline = 0.0
        self.trouble = ""
        """Why no question gets an answer any more, or ""."""

    @property
    def longest(self) -> float:
        """Seconds that an answer may take."""
        return self.seconds + GRACE

    def ask(self, what: str, gpus: Sequence[str], ours: Collection[int], need: int = 0) -> None:
        """Send a request, see :meth:`.memory_reader.Waiter.obey`; :meth:`answer` has its answer."""
        self._asked += 1
        self._wanted = f"{os.getpid()}-{self._asked}"
        seconds = 0.0 if what == "note" else self.seconds
        self._deadline = time.monotonic() + seconds + GRACE
        request = MemoryRequest(what, tuple(gpus), tuple(ours), need, seconds, self._wanted)
        if self._is_there(self._requests) and not _is_broken(self._requests):
            with suppress(OSError):
                os.write(self._requests, Packer().pack(request))
                return
        self._deadline = 0.0  # the process has ended, and may have left a reason

    def answer(self, wait: float) -> MemoryAnswer | None:
        """The answer, or why there is none; None if it may still come after `wait` seconds."""
        if self.trouble:
            return MemoryAnswer(unknown=self.trouble)
        poller = select.poll()
        poller.register(self._answers, select.POLLIN)
        if not self._is_there(self._answers):
            self.trouble = "the connection to the process that asks was closed"
        elif poller.poll(wait * 1000):
            data = os.read(self._answers, 1 << 16)
            self._data += data
            said = self._said()
            if said is not None:
                return said
            if not data:
                self.trouble = self.trouble or "the process that asks their driver has ended"
        if not self.trouble and time.monotonic() > self._deadline:
            self.trouble = "their driver does not answer"
            if _SIGN in system.describe(self._pid):  # else it was reaped, and the pid is another's
                with suppress(OSError):
                    os.kill(self._pid, signal.SIGKILL)
        return MemoryAnswer(unknown=self.trouble) if self.trouble else None

    def _said(self) -> MemoryAnswer | None:
        """The answer, if it has arrived; skips answers to processes that are gone."""
        for frame in cut(self._data):
            (said,) = unpack(frame, MESSAGES)
            if isinstance(said, CannotAnswer):
                self.trouble = self.trouble or said.why
            elif isinstance(said, MemoryAnswer) and said.id == self._wanted:
                return said
        return None

    def let_go(self) -> None:
        """Close the descriptors, in a process that does not ask."""
        for descriptor in filter(self._is_there, (self._requests, self._answers)):
            os.close(descriptor)

    def _is_there(self, descriptor: int) -> bool:
        return _file_of(descriptor) == self._files[descriptor] != 0

    def end(self) -> None:
        """End the process, at the end of the worker; one that hangs in the driver is left alone."""
        self.let_go()
        with suppress(ChildProcessError):
            deadline = time.monotonic() + _END
            while not os.waitpid(self._pid, os.WNOHANG)[0]:
                if time.monotonic() > deadline:
                    os.kill(self._pid, signal.SIGKILL)
                    return
                select.select([], [], [], 0.005)


def _file_of(descriptor: int) -> int:
    """The inode of an open file, 0 if the descriptor is closed."""
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return 0


def _is_broken(pipe: int) -> bool:
    """Whether nobody reads the pipe any more: to write would raise SIGPIPE, which may kill here."""
    poller = select.poll()
    poller.register(pipe, 0)
    return bool(poller.poll(0))


def watch_memory(config: pytest.Config, owned: Owned) -> GpuMemory | None:
    """Start the process, if the vendor's driver counts memory, until this pytest is over.

    Before collection, so that it is ready when the first test runs.
    """
    named = {gpu: list(names) for gpu, names in owned.named.items() if any(names)}
    if not VENDORS[owned.vendor].memory or not named or config.option.collectonly:
        return None
    memory = _start(owned, named, config.stash[SETTINGS].gpu_memory_timeout)
    if memory is not None:
        config.add_cleanup(memory.end)
    return memory


def _start(owned: Owned, named: dict[str, list[str]], seconds: float) -> GpuMemory | None:
    machine = Machine.here()
    ours: list[int] = []
    theirs: list[int] = []
    try:
        for pipes in ((theirs, ours), (ours, theirs)):
            for end, found in zip(os.pipe(), pipes):
                found.append(end)
        requests, answers = map(move_up, ours)
        process = subprocess.Popen(
            light_interpreter(
                "pytest_fkit.gpu.health.memory_reader:serve", machine.root, str(os.getpid()),
                *map(str, theirs), VENDORS[owned.vendor].memory, json.dumps(named),
                json.dumps([gpu for gpu in owned.ids if gpu in named]), str(int(owned.shared)),
            ),
            env=machine.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=theirs,
        )  # fmt: skip
    except OSError:  # a limit of the machine
        return None
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    process.returncode = 0  # GpuMemory.end() waits for the pid
    return GpuMemory(process.pid, requests, answers, owned.ids, seconds)
