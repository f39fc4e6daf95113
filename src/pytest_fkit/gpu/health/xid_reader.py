"""Reads Xids from NVML and from the kernel's log, in a process of its own for each of the two.

A driver in trouble can hang or crash a process that asks it. Functions, numbers and layouts of NVML
are those of nvml.h, see the NVML API reference.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import select
import stat
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Callable, Iterator

from ...named_tuple import NamedTuple
from ..answers import FailedError, MissingError, pci_address
from ..machine import Machine
from ..vendors.driver import DriverError
from ..vendors.nvml import UNTOLD, Nvml, append_line
from .xids import KERNEL, NVML

_XID = 8  # nvmlEventTypeXidCriticalError
_TIMEOUT = 10  # NVML_ERROR_TIMEOUT
_ANY = 0xFFFFFFFF  # no GPU instance, or all of them

_LOOK = 1.0
"""Seconds between two checks for the parent."""

_MOST_TROUBLES = 20
_PAUSE = 0.5
"""Errors of NVML in a row after which the reader gives up, and the seconds to pause after each."""

_PER_SECOND = 20
"""Xids of one kind to write per second: a fault can cause thousands."""

_MOST = 8 << 20
"""Bytes to write to the file."""

_RECORD = 1 << 16
"""Bytes; a read from /dev/kmsg with room for less than a record fails."""

_KMSG = "dev/kmsg"
_KMSG_NUMBER = 1, 11
"""Major and minor of the device: containers may have another file in its place."""

_INITIAL = "pid:[4026531836]"
"""The pid namespace whose pids the driver reports, PROC_PID_INIT_INO."""


class _Gpu(NamedTuple):
    """A GPU, or MIG instance, of the run.

    :param parent: uuid of the GPU that a MIG instance is part of, else "".
    """

    id: str
    uuid: str
    pci: str
    parent: str


class _Out:
    """Writes to the file of :class:`.xids.XidFile`."""

    def __init__(self, descriptor: str, source: str) -> None:
        self._descriptor = int(descriptor)
        self._source = source
        self._second = 0
        self._counts: Counter[object] = Counter()

    def begin(self, **more: object) -> None:
        append_line(self._descriptor, ready=self._source, **more)

    def instances(self) -> dict[str, int]:
        """Numbers of GPU instances, by ids of MIG instances, if NVML's reader has written them."""
        for line in os.pread(self._descriptor, _RECORD, 0).splitlines():
            with suppress(ValueError):
                said = json.loads(line)
                if said.get("instances"):
                    return dict(said["instances"])
        return {}

    def end(self, reason: str) -> None:
        append_line(self._descriptor, ended=self._source, reason=reason[:200])

    def xid(self, number: int, gpus: list[str], **fields: object) -> None:
        """Write an Xid, unless it concerns no GPU of the run, or there were too many like it."""
        now = time.monotonic()
        if int(now) != self._second:
            self._second = int(now)
            self._counts.clear()
        like = number, *gpus
        self._counts[like] += 1
        if gpus and 0 < number < 10**6 and self._counts[like] <= _PER_SECOND:
            wall, mono = round(time.time(), 6), round(now, 6)
            said = {name: value for name, value in fields.items() if value}
            append_line(
                self._descriptor,
                xid=number,
                gpus=gpus,
                wall=wall,
                mono=mono,
                source=self._source,
                **said,
            )

    @property
    def is_full(self) -> bool:
        return os.fstat(self._descriptor).st_size > _MOST


def _gpus(text: str) -> list[_Gpu]:
    return [_Gpu(*each) for each in json.loads(text)]


# --- NVML ---------------------------------------------------------------------------------------


class _Event(ctypes.Structure):  # nvmlEventData_t
    _fields_ = (
        ("device", ctypes.c_void_p),
        ("type", ctypes.c_ulonglong),
        ("data", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


def read_nvml(descriptor: str, parent: str, gpus: str) -> None:
    """Write the Xids that NVML reports, as long as the parent lives.

    :param parent: the pid of the process that reads it.
    :param gpus: a list of the fields of each, in JSON.
    """
    out = _Out(descriptor, NVML)
    try:
        events = _Events(Nvml(Machine.here()), _gpus(gpus))
        reason = events.run(out, lambda: os.getppid() == int(parent))
    except DriverError as error:
        reason = f"{error.call}: {error.number}"
    except (MissingError, FailedError) as error:  # no library; a driver that knows no events
        reason = str(error)
    out.end(reason)


class _Events:
    """Waits for NVML's events of Xids."""

    def __init__(self, nvml: Nvml, gpus: list[_Gpu]) -> None:
        self._nvml = nvml
        self._gpus = gpus
        self._set = ctypes.c_void_p()
        self._wholes: dict[int, str] = {}  # uuids by handles
        self._instances: dict[str, int] = {}  # numbers of GPU instances, by id

    def run(self, out: _Out, goes_on: Callable[[], bool]) -> str:
        """Write Xids until it is over; returns why it is.

        :raises DriverError, MissingError: if there are no events.
        """
        self._nvml.call("nvmlEventSetCreate", ctypes.byref(self._set))
        for uuid in dict.fromkeys(each.parent or each.uuid for each in self._gpus):
            with suppress(*UNTOLD):
                self._register(uuid)
        if not self._wholes:
            return "no GPU tells of Xids"
        for each in self._gpus:
            if each.parent:
                with suppress(*UNTOLD):
                    handle = self._nvml.by_uuid(each.uuid)
                    self._instances[each.id] = self._nvml.instance_number(handle)
        out.begin(instances=self._instances)
        return self._wait(out, goes_on)

    def _register(self, uuid: str) -> None:
        gpu = self._nvml.by_uuid(uuid)
        self._nvml.call("nvmlDeviceRegisterEvents", gpu, ctypes.c_ulonglong(_XID), self._set)
        self._wholes[gpu.value or 0] = uuid

    def _wait(self, out: _Out, goes_on: Callable[[], bool]) -> str:
        troubles = 0
        while goes_on():
            event = _Event(gpu_instance=_ANY)
            status = self._next(event)
            if status == 0 and event.type == _XID:
                out.xid(int(event.data), self._concerned(event))
            if status in (0, _TIMEOUT):
                troubles = 0
            else:  # a GPU is lost, and every wait returns so at once
                troubles += 1
                time.sleep(_PAUSE)
            if troubles > _MOST_TROUBLES or out.is_full:
                return f"nvmlEventSetWait_v2: {status}" if troubles else "there are too many"
        return "the run is over"

    def _next(self, event: _Event) -> int:
        """Wait for an event; what NVML returns."""
        milliseconds = ctypes.c_uint(int(_LOOK * 1000))
        try:
            self._nvml.call("nvmlEventSetWait_v2", self._set, ctypes.byref(event), milliseconds)
        except DriverError as error:
            return error.number
        return 0

    def _uuid(self, handle: int | None) -> str:
        """The UUID of a GPU of unknown handle; "" if the GPU is lost."""
        try:
            return self._nvml.uuid(ctypes.c_void_p(handle))
        except DriverError:
            return ""

    def _concerned(self, event: _Event) -> list[str]:
        uuid = self._wholes.get(event.device or 0) or self._uuid(event.device)
        return [
            each.id
            for each in self._gpus
            if uuid
            and uuid == (each.parent or each.uuid)
            and (
                not each.parent
                or event.gpu_instance == _ANY
                or self._instances.get(each.id) == event.gpu_instance
            )
        ]


# --- the kernel's log ---------------------------------------------------------------------------


# As krcReportXid writes it, in src/nvidia/src/kernel/gpu/rc/kernel_rc.c of
# NVIDIA/open-gpu-kernel-modules, and drivers before it that name no process, or no bus.
_LINE = re.compile(
    r"NVRM: Xid \((?:PCI:)?(?P<pci>[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2})(?:\.[0-7])?"
    r"(?: GPU-I:(?P<instance>\d{1,6}))?(?: GPU-CI:\d{1,6})?\): (?P<number>\d{1,6})"
    r"(?:, pid=(?:(?P<pid>\d{1,10})|'?<?unknown>?'?))?"
    r"(?:, name=(?P<process>[^,]{0,64}))?(?:, (?P<text>.*))?",
    re.IGNORECASE,
)

_KERNEL = 0
"""The facility of what the kernel itself writes: who writes to /dev/kmsg can't have it."""


class LoggedXid(NamedTuple):
    """What a line says.

    :param pci: the GPU's address, as :func:`.answers.pci_address` gives it.
    :param instance: number of the GPU instance, -1 where it is none of one.
    :param pid: 0 if unknown.
    :param process: "" if unknown.
    :param text: the rest of the line.
    """

    number: int
    pci: str
    instance: int
    pid: int
    process: str
    text: str


def parse_record(record: str) -> LoggedXid | None:
    """The Xid in a record of /dev/kmsg, None if there is none.

    :param record: as in "3,4711,5140900,-;NVRM: Xid …" (the kernel's
        Documentation/ABI/testing/dev-kmsg).
    """
    prefix, semicolon, text = record.partition(";")
    priority = prefix.partition(",")[0]
    if not semicolon or not priority.isdecimal() or len(priority) > 9:
        return None
    return parse_line(text) if int(priority) >> 3 == _KERNEL else None


def parse_line(text: str) -> LoggedXid | None:
    """The Xid in a line of the log, None if there is none."""
    found = _LINE.match(text.partition("\n")[0])
    if found is None:
        return None
    process = found["process"] or ""
    return LoggedXid(
        int(found["number"]),
        pci_address(f"{found['pci']}.0"),
        -1 if found["instance"] is None else int(found["instance"]),
        int(found["pid"] or 0),
        "" if "<unknown>" in process else process,
        (found["text"] or "").strip(),
    )


def open_log(machine: Machine) -> int:
    """Open the kernel's log for records from now on.

    :raises OSError: if it can't be read.
    """
    descriptor = os.open(machine.path(_KMSG), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    number = os.major(found.st_rdev), os.minor(found.st_rdev)
    # In the tests' machines it is a regular file.
    if machine.root == "/" and not (stat.S_ISCHR(found.st_mode) and number == _KMSG_NUMBER):
        os.close(descriptor)
        raise OSError(errno.ENODEV, "not the kernel's log")
    os.lseek(descriptor, 0, os.SEEK_END)
    return descriptor


def read_kernel_log(descriptor: str, parent: str, gpus: str) -> None:
    """Write the Xids in the kernel's log, as :func:`read_nvml` does."""
    out = _Out(descriptor, KERNEL)
    try:
        log = open_log(Machine.here())
    except OSError as error:
        out.end(str(error))
        return
    out.begin()
    for record in _records(log, lambda: os.getppid() == int(parent)):
        xid = parse_record(record)
        if xid is not None:
            above = _above(xid.pid)
            instances = out.instances() if xid.instance >= 0 else {}
            out.xid(
                xid.number, _named(xid, _gpus(gpus), instances), process=xid.process,
                text=xid.text[:400], above=above, pid=xid.pid if above is not None else 0,
            )  # fmt: skip
        if out.is_full:
            out.end("there are too many")
            return
    out.end("the run is over")


def _records(log: int, goes_on: Callable[[], bool]) -> Iterator[str]:
    poll = select.poll()
    poll.register(log, select.POLLIN)
    while goes_on():
        poll.poll(_LOOK * 1000)
        try:
            data = os.read(log, _RECORD)
        except BlockingIOError:
            continue
        except OSError as error:
            if error.errno != errno.EPIPE:  # records were overwritten before they were read
                return
            continue
        if not data:  # a file of tests
            time.sleep(0.02)
        yield from data.decode("utf-8", "replace").splitlines()


def _named(xid: LoggedXid, gpus: list[_Gpu], instances: dict[str, int]) -> list[str]:
    return [
        each.id
        for each in gpus
        if each.pci == xid.pci
        and (not each.parent or xid.instance < 0 or instances.get(each.id) == xid.instance)
    ]


def _above(pid: int) -> list[int] | None:
    """A process and its ancestors; empty if one is gone, None if the pid means nothing here."""
    found: list[int] = []
    try:
        if os.readlink("/proc/self/ns/pid") != _INITIAL:
            return None
        while pid > 0:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            found.append(pid)
            pid = int(fields[1])
    except (OSError, ValueError, IndexError):
        return []
    return found
