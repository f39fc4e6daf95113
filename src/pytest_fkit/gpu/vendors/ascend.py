"""Huawei's Ascend NPUs: npu-smi, else their device files."""

from __future__ import annotations

import re

from ..asking.reading import rubbish
from ..asking.ways import Found, Prober, Way
from ..devices import Device

# "NPU ID  Chip ID  Chip Logic ID  Chip Name", newer ones with "Chip Phy-ID" before the name.
_CHIP = re.compile(r"\s*[0-9]+\s+[0-9]+\s+([0-9]{1,4})\s+(?:(?:[0-9]+|-)\s+)?([^\s0-9].*?)\s*")


def ask_npu_smi(prober: Prober) -> Found:
    """The program that comes with the driver."""
    return parse_mapping(prober.tool("npu-smi", "info", "-m"))


def parse_mapping(text: str) -> Found:
    """What ``npu-smi info -m`` prints: a table of chips (npu-smi Command Reference).

    Its columns are "NPU ID", "Chip ID", "Chip Logic ID", with newer versions "Chip Phy-ID", and
    "Chip Name". The logic id is what ASCEND_RT_VISIBLE_DEVICES takes; a chip that does not compute
    ("Mcu") has "-".

    :raises FailedError: if it is not that.
    """
    if "Chip Logic ID" not in text:
        raise rubbish(text)
    chips = [match for match in map(_CHIP.fullmatch, text.splitlines()) if match]
    devices = [Device("ascend", int(chip[1]), name=chip[2]) for chip in chips]
    return Found(tuple(sorted(devices, key=lambda device: device.ordinal)))


def ask_dev(prober: Prober) -> Found:
    """The device files; a process that was given some of them counts these from 0."""
    files = prober.machine.names("dev", r"davinci\d+")
    return Found(tuple(Device("ascend", ordinal) for ordinal in range(len(files))))


WAYS = (Way("npu-smi", ask_npu_smi), Way("/dev", ask_dev))
