"""Xids in the kernel's log, as NVIDIA's driver writes them there.

The lines are those of krcReportXid in src/nvidia/src/kernel/gpu/rc/kernel_rc.c of
NVIDIA/open-gpu-kernel-modules, and of drivers before it that name no process, or no bus.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..asking.reading import pci_address

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

    :param pci: the GPU's address, as :func:`.reading.pci_address` gives it.
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
