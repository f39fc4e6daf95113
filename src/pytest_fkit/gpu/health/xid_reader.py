"""Reads Xids, from NVML and from the kernel's log; runs in processes of its own.

A driver in trouble can hang or crash who asks it, so each of the two has its own. NVML through
ctypes, as in nvml_health.py, since nvidia-ml-py may not be there; functions, numbers and layouts
are those of nvml.h, see the NVML API reference.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import stat
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

from ..asking.machine import Machine
from .xid_lines import LoggedXid, parse_record
from .xids import KERNEL, NVML

_LIBRARY = "libnvidia-ml.so.1"
_XID = 8  # nvmlEventTypeXidCriticalError
_TIMEOUT = 10  # NVML_ERROR_TIMEOUT
_ANY = 0xFFFFFFFF  # no GPU instance, or all of them

_LOOK = 1.0
"""Seconds after which a reader looks whether its parent is still there."""

_MOST_TROUBLES = 20
_PAUSE = 0.5
"""Seconds after an error of NVML's, and after how many in a row it is given up."""

_PER_SECOND = 20
"""Xids of one kind that are written down: a fault can bring on thousands."""

_MOST = 8 << 20
"""Bytes of the file that a reader fills."""

_RECORD = 1 << 16
"""Bytes; a read from /dev/kmsg with room for less than a record fails."""

_KMSG = "dev/kmsg"
_KMSG_NUMBER = 1, 11
"""Of the device: containers may have something else in its place."""

_INITIAL = "pid:[4026531836]"
"""The pid namespace in which the driver's numbers mean something, PROC_PID_INIT_INO."""


class _Gpu(NamedTuple):
    """A GPU, or MIG instance, of the run.

    :param parent: uuid of the GPU that a MIG instance is part of, else "".
    """

    id: str
    uuid: str
    pci: str
    parent: str


class _Out:
    """Writes down."""

    def __init__(self, descriptor: str, source: str) -> None:
        self._descriptor = int(descriptor)
        self._source = source
        self._second = 0
        self._counts: Counter[Any] = Counter()

    def begin(self, **more: Any) -> None:
        self._write(ready=self._source, **more)

    def instances(self) -> dict[str, int]:
        """Numbers of GPU instances, by ids of MIG instances, as far as NVML has told."""
        for line in os.pread(self._descriptor, _RECORD, 0).splitlines():
            with suppress(ValueError):
                said = json.loads(line)
                if said.get("instances"):
                    return dict(said["instances"])
        return {}

    def end(self, reason: str) -> None:
        self._write(ended=self._source, reason=reason[:200])

    def xid(self, number: int, gpus: list[str], **fields: Any) -> None:
        """Write one down, unless there are too many like it, or it concerns nobody."""
        now = time.monotonic()
        if int(now) != self._second:
            self._second = int(now)
            self._counts.clear()
        like = number, *gpus
        self._counts[like] += 1
        if gpus and 0 < number < 10**6 and self._counts[like] <= _PER_SECOND:
            wall, mono = round(time.time(), 6), round(now, 6)
            said = {name: value for name, value in fields.items() if value}
            self._write(xid=number, gpus=gpus, wall=wall, mono=mono, source=self._source, **said)

    @property
    def is_full(self) -> bool:
        return os.fstat(self._descriptor).st_size > _MOST

    def _write(self, **fields: Any) -> None:
        # One call, to a file that is appended to: a line is there as a whole, or not.
        os.write(self._descriptor, json.dumps(fields).encode() + b"\n")


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
    """Write the Xids down that NVML tells of, as long as the parent is there.

    :param descriptor: of the file.
    :param parent: the pid of the process that reads it.
    :param gpus: a list of the fields of each, in JSON.
    """
    out = _Out(descriptor, NVML)
    try:
        nvml = ctypes.CDLL(_LIBRARY)
        reason = _Nvml(nvml, _gpus(gpus)).run(out, lambda: os.getppid() == int(parent))
    except (OSError, AttributeError) as error:  # no library; a driver that knows no events
        reason = str(error)
    out.end(reason)


class _Nvml:
    def __init__(self, nvml: Any, gpus: list[_Gpu]) -> None:
        self._nvml = nvml
        self._gpus = gpus
        self._wholes: dict[int, str] = {}  # uuids by handles
        self._instances: dict[str, int] = {}  # numbers of GPU instances, by id

    def run(self, out: _Out, goes_on: Callable[[], bool]) -> str:
        """Until it is over; why."""
        nvml = self._nvml
        status = nvml.nvmlInit_v2()
        if status:
            return f"nvmlInit_v2: {status}"
        events = ctypes.c_void_p()
        status = nvml.nvmlEventSetCreate(ctypes.byref(events))
        if status:
            return f"nvmlEventSetCreate: {status}"
        uuids = dict.fromkeys(each.parent or each.uuid for each in self._gpus)
        if not [uuid for uuid in uuids if uuid and self._register(uuid, events)]:
            return "no GPU tells of Xids"
        for each in self._gpus:
            if each.parent:
                self._number(each)
        out.begin(instances=self._instances)
        return self._wait(out, events, goes_on)

    def _register(self, uuid: str, events: ctypes.c_void_p) -> bool:
        gpu = self._handle(uuid)
        kind = ctypes.c_ulonglong(_XID)
        if gpu is None or self._nvml.nvmlDeviceRegisterEvents(gpu, kind, events):
            return False
        self._wholes[gpu.value or 0] = uuid
        return True

    def _handle(self, uuid: str) -> ctypes.c_void_p | None:
        gpu = ctypes.c_void_p()
        status = self._nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(gpu))
        return None if status else gpu

    def _number(self, instance: _Gpu) -> None:
        handle, number = self._handle(instance.uuid), ctypes.c_uint()
        if handle is not None and not self._nvml.nvmlDeviceGetGpuInstanceId(
            handle, ctypes.byref(number)
        ):
            self._instances[instance.id] = number.value

    def _wait(self, out: _Out, events: ctypes.c_void_p, goes_on: Callable[[], bool]) -> str:
        troubles = 0
        milliseconds = ctypes.c_uint(int(_LOOK * 1000))
        while goes_on():
            event = _Event(gpu_instance=_ANY)
            status = self._nvml.nvmlEventSetWait_v2(events, ctypes.byref(event), milliseconds)
            if status == 0 and event.type == _XID:
                out.xid(int(event.data), self._concerned(event))
            if status in (0, _TIMEOUT):
                troubles = 0
            else:  # a GPU is lost, and whoever waits is told so again and again
                troubles += 1
                time.sleep(_PAUSE)
            if troubles > _MOST_TROUBLES or out.is_full:
                return f"nvmlEventSetWait_v2: {status}" if troubles else "there are too many"
        return "the run is over"

    def _uuid(self, handle: int | None) -> str:
        """Of a GPU of which there is another handle; "" if it does not tell any more."""
        text = ctypes.create_string_buffer(96)  # NVML_DEVICE_UUID_V2_BUFFER_SIZE
        gpu = ctypes.c_void_p(handle)
        status = self._nvml.nvmlDeviceGetUUID(gpu, text, ctypes.c_uint(len(text)))
        return "" if status else text.value.decode("ascii", "replace")

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


def open_log(machine: Machine) -> int:
    """The kernel's log, from now on.

    :raises OSError: if it can't be read here.
    """
    descriptor = os.open(machine.path(_KMSG), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    number = os.major(found.st_rdev), os.minor(found.st_rdev)
    # That of a machine of tests is a file.
    if machine.root == "/" and not (stat.S_ISCHR(found.st_mode) and number == _KMSG_NUMBER):
        os.close(descriptor)
        raise OSError(errno.ENODEV, "not the kernel's log")
    os.lseek(descriptor, 0, os.SEEK_END)
    return descriptor


def read_kernel_log(descriptor: str, parent: str, gpus: str) -> None:
    """The same from the kernel's log."""
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
            if error.errno != errno.EPIPE:  # some were overwritten before they were read
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
    """A process and those above it; none where one is gone, None where its number means nothing."""
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
