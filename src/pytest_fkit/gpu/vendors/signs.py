"""What says that a vendor's GPUs may be there, seen in our own process and in no time.

Detection asks nobody, and does not even load a vendor's file, where there is no such sign.
"""

from __future__ import annotations

from typing import Callable

from ...own import own_builtins
from ..asking.machine import Machine
from .drm import AMD, INTEL, LEAST_MEMORY, integrated, render_devices

own_builtins(globals())


def no_nvidia(machine: Machine) -> str:
    """Why the machine has no NVIDIA GPU, "" if it may have one."""
    # A container shares /proc with a machine that has GPUs, but not its device files; on the
    # machine itself these are made by the first program that asks NVML. /dev/dxg is WSL's.
    if (
        machine.exists("proc/driver/nvidia")
        or machine.names("dev", r"nvidia(ctl|\d+)")
        or machine.exists("dev/dxg")
    ):
        return ""
    return "no driver (none of /proc/driver/nvidia, /dev/nvidia*, /dev/dxg is there)"


def no_amd(machine: Machine) -> str:
    """Why the machine has no AMD GPU to compute on, "" if it may have one."""
    if not machine.exists("dev/kfd"):
        return "no compute driver (there is no /dev/kfd)"
    memory = [device.memory for device in render_devices(machine) if device.vendor == AMD]
    if memory and min(memory) > 0 and max(memory) < LEAST_MEMORY:
        return f"only integrated GPUs (the largest has {max(memory) >> 20} MiB of its own)"
    return ""


def no_ascend(machine: Machine) -> str:
    """Why the machine has no Ascend NPU, "" if it may have one."""
    if machine.names("dev", r"davinci\d+"):
        return ""
    return "no driver (there is no /dev/davinci<number>)"


def no_intel(machine: Machine) -> str:
    """Why the machine has no Intel GPU to compute on, "" if it may have one."""
    gpus = [device.pci for device in render_devices(machine) if device.vendor == INTEL]
    if not gpus:
        return "no render device"
    if all(integrated(pci) for pci in gpus) and not machine.tool("xpu-smi"):
        return "only an integrated GPU, and no xpu-smi"
    return ""


ABSENT: dict[str, Callable[[Machine], str]] = {
    "nvidia": no_nvidia,
    "amd": no_amd,
    "ascend": no_ascend,
    # Integrated more often than not: it must never win over another one.
    "intel": no_intel,
}
"""By vendor, in the order in which they are looked for, why there is none of its GPUs."""


def may_have_gpus(machine: Machine) -> bool:
    """Whether there is a sign of any."""
    return not all(reason(machine) for reason in ABSENT.values())
