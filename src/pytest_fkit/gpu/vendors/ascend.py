"""Huawei's Ascend NPUs: npu-smi, else their device files."""

from __future__ import annotations

import re
from typing import Mapping, Sequence

from ...own import own_builtins
from ..answers import rubbish
from ..devices import Device
from ..machine import Machine
from .vendor import (
    Entry,
    Found,
    Prober,
    Vendor,
    Visible,
    Way,
    by_number,
    unmasked,
    until_invalid,
    until_repeated,
)

own_builtins(globals())

_MASK = "ASCEND_RT_VISIBLE_DEVICES"
_DEVICE_FILE = r"davinci\d+"

# "NPU ID  Chip ID  Chip Logic ID  Chip Name", newer ones with "Chip Phy-ID" before the name.
_CHIP = r"\s*[0-9]+\s+[0-9]+\s+([0-9]{1,4})\s+(?:(?:[0-9]+|-)\s+)?([^\s0-9].*?)\s*"


def absent(machine: Machine) -> str:
    found = machine.names("dev", _DEVICE_FILE)
    return "" if found else "no driver (there is no /dev/davinci<number>)"


def parse_mapping(text: str) -> Found:
    """What ``npu-smi info -m`` prints: a table of chips (npu-smi Command Reference).

    Its columns are "NPU ID", "Chip ID", "Chip Logic ID", with newer versions "Chip Phy-ID", and
    "Chip Name". The logic id is what ASCEND_RT_VISIBLE_DEVICES takes; a chip that does not compute
    ("Mcu") has "-".

    :raises FailedError: if it is not that.
    """
    if "Chip Logic ID" not in text:
        raise rubbish(text)
    chips = [match for line in text.splitlines() for match in [re.fullmatch(_CHIP, line)] if match]
    devices = [Device("ascend", int(chip[1]), name=chip[2]) for chip in chips]
    return Found(tuple(sorted(devices, key=lambda device: device.ordinal)))


def ask_dev(prober: Prober) -> Found:
    """The device files; a process that was given some of them counts these from 0."""
    files = prober.machine.names("dev", _DEVICE_FILE)
    return Found(tuple(Device("ascend", ordinal) for ordinal in range(len(files))))


WAYS = (
    Way("npu-smi", lambda prober: parse_mapping(prober.tool("npu-smi", "info", "-m"))),
    Way("/dev", ask_dev),
)


def visible(devices: Sequence[Device], environ: Mapping[str, str]) -> Visible:
    """Whatever is no digit and no comma ends the list (CANN, ASCEND_RT_VISIBLE_DEVICES)."""
    mask = environ.get(_MASK)
    if mask is None:
        return unmasked("ascend", devices)
    notices: list[str] = []
    entries = until_invalid(_MASK, mask, lambda text: by_number(devices, text), notices)
    return Visible("ascend", tuple(until_repeated(entries)), tuple(notices))


def variables(
    entries: Sequence[Entry], _inherited: Mapping[str, str], _amd_mask: str
) -> dict[str, str]:
    """See :class:`.Vendor`. CANN takes ids in ascending order only."""
    return {_MASK: ",".join(sorted((entry.text for entry in entries), key=int)) or "-1"}


ASCEND = Vendor(
    "ascend",
    "Ascend",
    (_MASK,),
    absent,
    lambda: WAYS,
    visible,
    variables,
    frozenset({"huawei", "ascend"}),
)
