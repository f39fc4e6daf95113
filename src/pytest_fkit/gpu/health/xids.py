"""Xids, the errors that NVIDIA's driver reports of a GPU: their meaning, and whose fault they are.

Names are those of NVIDIA's "Xid Errors" (docs.nvidia.com/deploy/xid-errors), numbers those of
nverror.h in NVIDIA/open-gpu-kernel-modules.
"""

from __future__ import annotations

import json
import re
from typing import Any, Iterable, Sequence

from ...named_tuple import NamedTuple
from ...own import os, own_builtins, time
from ...protocol.endings import FAULTS, Ending, Exited, Signaled, TimedOut
from ...protocol.event_file import GpuError
from ...protocol.plain_values import carriable
from ..devices import gpu_names

own_builtins(globals())

DEVICE = "device"
PROGRAM = "program"
EITHER = ""
"""Whose fault an Xid is. EITHER decides nothing: both are possible, or another Xid caused it."""


class XidKind(NamedTuple):
    """The meaning of an Xid number.

    :param name: NVIDIA's.
    :param fault: DEVICE, PROGRAM or EITHER.
    """

    name: str
    fault: str


KINDS = {
    8: XidKind("GPU stopped processing", EITHER),
    # NVIDIA/k8s-device-plugin (internal/rm/health.go) leaves a GPU in use after 13, 31, 43, 45, 68
    # and 109, as errors of applications.
    13: XidKind("Graphics Engine Exception", PROGRAM),
    31: XidKind("GPU memory page fault", PROGRAM),
    32: XidKind("Invalid or corrupted push buffer stream", EITHER),
    38: XidKind("Driver firmware error", EITHER),
    43: XidKind("GPU stopped processing", EITHER),  # what a channel comes to after its fault
    44: XidKind("Graphics Engine fault during context switch", EITHER),
    45: XidKind("Preemptive cleanup, due to previous errors", EITHER),
    46: XidKind("GPU stopped processing", EITHER),
    48: XidKind("Double Bit ECC Error", DEVICE),
    61: XidKind("Internal micro-controller breakpoint/warning", EITHER),
    62: XidKind("Internal micro-controller halt", EITHER),
    63: XidKind("ECC page retirement or row remapping recording event", DEVICE),
    64: XidKind("ECC page retirement or row remapper recording failure", DEVICE),
    68: XidKind("NVDEC0 Exception", EITHER),
    69: XidKind("Graphics Engine class error", EITHER),
    74: XidKind("NVLINK Error", DEVICE),
    79: XidKind("GPU has fallen off the bus", DEVICE),
    92: XidKind("High single-bit ECC error rate", EITHER),  # they were corrected
    94: XidKind("Contained ECC error", DEVICE),
    95: XidKind("Uncontained ECC error", DEVICE),
    109: XidKind("Context Switch Timeout Error", EITHER),
    119: XidKind("GSP RPC Timeout", DEVICE),
    120: XidKind("GSP Error", EITHER),
    140: XidKind("Unrecovered ECC Error", DEVICE),
    154: XidKind("GPU Recovery Action Changed", EITHER),
}
"""By number; others are shown, and decide nothing."""

KERNEL, NVML = "kernel log", "NVML"
"""Where an Xid was read."""

_DOUBLE = 1.0
"""Seconds within which both report the same one."""

_MOST_SHOWN = 20
_TEXT = 200
"""Lines in a report, and characters of each text by the driver."""

_CAUSED = re.compile(r"\bcaused by previous Xid (\d{1,9})\b")  # driver 580 on, after Xid 45


class Xid(NamedTuple):
    """One Xid.

    :param gpus: ids of the GPUs of this run that are concerned: one, or all MIG instances of one.
    :param wall: when it was read, in seconds since the epoch.
    :param mono: the same by the monotonic clock.
    :param source: KERNEL or NVML.
    :param pid: of the process, as the driver says; 0 if it does not, and in a container, where the
        number means nothing.
    :param process: its name, "" if unknown.
    :param text: the rest of the driver's message.
    :param above: `pid` and its ancestors, if the process still lived.
    """

    number: int
    gpus: tuple[str, ...]
    wall: float
    mono: float
    source: str
    pid: int = 0
    process: str = ""
    text: str = ""
    above: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """What it means, "" if unknown."""
        return KINDS[self.number].name if self.number in KINDS else ""

    @property
    def title(self) -> str:
        """As in "Xid 79 (GPU has fallen off the bus)"."""
        return f"Xid {self.number} ({self.name})" if self.name else f"Xid {self.number}"

    @property
    def headline(self) -> str:
        """The same with the GPU."""
        return f"{self.title} on {gpu_names(self.gpus)}"

    @property
    def fault(self) -> str:
        """DEVICE, PROGRAM or EITHER."""
        kind = KINDS.get(self.number)
        if kind is not None and kind.fault:
            return kind.fault
        caused = _CAUSED.search(self.text)
        cause = KINDS.get(int(caused.group(1))) if caused else None
        return EITHER if cause is None else cause.fault

    def facts(self) -> dict[str, object]:
        """The journal's facts about it, without the times; in built-in types."""
        found = {
            "xid": self.number, "name": self.name, "gpus": list(self.gpus), "source": self.source,
            "pid": self.pid, "process": self.process, "message": self.text,
        }  # fmt: skip
        return {name: value for name, value in found.items() if value}


def xid_of(line: Any) -> Xid | None:
    """The Xid in a reader's line, None if it has none."""
    try:
        return Xid(
            int(line["xid"]), tuple(map(str, line["gpus"])), float(line["wall"]),
            float(line["mono"]), str(line["source"]), int(line.get("pid", 0)),
            str(line.get("process", "")), str(line.get("text", "")),
            tuple(map(int, line.get("above", ()))),
        )  # fmt: skip
    except (TypeError, ValueError, KeyError, AttributeError):
        return None


_MOST_OF_FILE = 32 << 20
"""Bytes; more than readers write."""


class XidFile:
    """Reads new lines of the readers' file, at the cost of one system call if there are none.

    Readers append lines of JSON: an Xid, that they are ready, or why they have ended.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = 0
        self._ready: set[str] = set()

    @property
    def is_told(self) -> bool:
        """Whether a reader is at work, by the lines read so far."""
        return bool(self._ready)

    def read(self) -> list[Xid]:
        """The Xids written since the last call; none if the file can't be read."""
        try:
            if os.stat(self._path).st_size <= self._offset:
                return []
            data = self._new()
        except OSError:  # the process that made it is gone
            self._ready.clear()
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [xid for line in whole.splitlines() for xid in self._parse(line)]

    def _new(self) -> bytes:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, _MOST_OF_FILE, self._offset)
        finally:
            os.close(descriptor)

    def _parse(self, line: bytes) -> list[Xid]:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return []
        if not isinstance(said, dict):
            return []
        if "ready" in said:
            self._ready.add(str(said["ready"]))
        elif "ended" in said:
            self._ready.discard(str(said["ended"]))
        xid = xid_of(said)
        return [] if xid is None else [xid]


def falling_into(
    xids: Iterable[Xid], gpus: Iterable[str], since: float, worker: int = 0
) -> tuple[Xid, ...]:
    """Those that concern one of these GPUs, and came after `since`.

    :param since: by the monotonic clock.
    :param worker: pid of the process below which tests run, to leave out Xids of processes that are
        known not to be below it; 0 to leave out none.
    """
    mine = set(gpus)
    of_gpus = [
        each for each in xids if each.mono >= since - _DOUBLE and mine.intersection(each.gpus)
    ]
    return tuple(
        each
        for each in without_doubles(of_gpus)
        if each.mono >= since and not (worker and each.above and worker not in each.above)
    )


def without_doubles(xids: Sequence[Xid]) -> list[Xid]:
    """Without those of NVML that the kernel's log has, too, with more details."""
    logged: dict[tuple[int, str], list[float]] = {}
    for each in xids:
        if each.source == KERNEL:
            for gpu in each.gpus:
                logged.setdefault((each.number, gpu), []).append(each.mono)
    return [each for each in xids if each.source == KERNEL or not _is_logged(each, logged)]


def _is_logged(xid: Xid, logged: dict[tuple[int, str], list[float]]) -> bool:
    times = [at for gpu in xid.gpus for at in logged.get((xid.number, gpu), ())]
    return any(abs(at - xid.mono) <= _DOUBLE for at in times)


def may_explain(ending: Ending) -> bool:
    """Whether a failing GPU may have ended the process so."""
    if isinstance(ending, Signaled):
        return ending.signal in FAULTS
    return isinstance(ending, TimedOut) or (isinstance(ending, Exited) and ending.status != 0)


def decided(error: GpuError | None, unexplained: str, xids: Sequence[Xid]) -> GpuError | None:
    """The GPU error that a failure is, if any, given the Xids.

    :param error: the GPU error by its message, if any.
    :param unexplained: how the process of the test died, if of an unknown cause; else "".
    :param xids: those of the test's time and GPUs.
    """
    doubtful = bool(unexplained) if error is None else error.doubtful
    if not doubtful:
        return error
    said = unexplained if error is None else error.text
    of_device = [each for each in xids if each.fault == DEVICE]
    if of_device:
        return GpuError(
            DEVICE, f"{_headlines(of_device)}: {said}", counts=True, probe=True, poisons=True,
            event="" if error is None else error.event,
            gpus=tuple(dict.fromkeys(gpu for each in of_device for gpu in each.gpus)),
        )  # fmt: skip
    of_program = [each for each in xids if each.fault == PROGRAM]
    if error is None or not of_program:
        return error
    text = f"{_headlines(of_program)}: {said}"
    return error._replace(text=carriable(text), counts=False, retry=False, doubtful=False)


def _headlines(xids: Sequence[Xid]) -> str:
    return "; ".join(list(dict.fromkeys(each.headline for each in xids))[:3])


def described(xids: Sequence[Xid]) -> str:
    """Lines for a report, equal ones as one."""
    alike: dict[str, list[Xid]] = {}
    for each in xids:
        alike.setdefault(each.headline, []).append(each)
    lines = [_line(each) for each in alike.values()]
    more = len(lines) - _MOST_SHOWN
    if more > 0:
        lines[_MOST_SHOWN:] = [f"and {more} other Xids"]
    return "".join(f"{line}\n" for line in lines)


def _line(alike: Sequence[Xid]) -> str:
    first = alike[0]
    at = time.strftime("%H:%M:%S", time.localtime(first.wall))
    times = f", {len(alike)} times" if len(alike) > 1 else ""
    said = f"pid {first.pid} ({first.process or '?'}), {first.text}" if first.pid else first.text
    return f"{first.headline} at {at}{times}" + (f": {said[:_TEXT]}" if said else "")
