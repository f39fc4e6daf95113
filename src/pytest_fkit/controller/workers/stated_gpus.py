"""What the user, or a plugin, tells of a machine's GPUs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Sequence

import pytest

from ...config.settings import GpuSettings
from ...gpu.devices import Device, Fleet
from ...gpu.vendors.detection import VENDORS
from ...own import own_builtins

own_builtins(globals())


def answered(
    config: pytest.Config, settings: GpuSettings, host: str
) -> tuple[Fleet | None, GpuSettings]:
    """The GPUs of a machine, if the user or a plugin tells them, and what is to be made of them.

    :param host: "" for this machine, else its address.
    :return: None where they have to be detected.
    :raises pytest.UsageError: if a plugin's answer makes no sense.
    """
    if settings.gpus == "none":
        return Fleet(trail=(f"{settings.source}: not looked for",)), settings
    answer: Any = config.hook.pytest_fkit_gpus(config=config, host=host)
    if answer is None:
        return None, settings
    kinds = {type(each) for each in answer} if isinstance(answer, (list, tuple)) else {None}
    if kinds <= {Device}:
        return _told(answer), settings
    if not kinds <= {int, str}:
        raise pytest.UsageError(
            f"pytest-fkit: pytest_fkit_gpus answered {answer!r}: expected a list of devices, or ids"
        )
    if settings.gpus != "auto":
        return None, settings
    ids = tuple(str(each) for each in answer)
    return None, replace(settings, gpus=ids, source=f"pytest_fkit_gpus: {','.join(ids)}")


def _told(devices: Sequence[Device]) -> Fleet:
    vendors = list(dict.fromkeys(device.vendor for device in devices))
    if len(vendors) > 1 or not set(vendors) <= set(VENDORS):
        raise pytest.UsageError(
            f"pytest-fkit: pytest_fkit_gpus: devices of {', '.join(map(repr, vendors))}: expected "
            f"one of {', '.join(VENDORS)} for all"
        )
    trail = f"pytest_fkit_gpus: {len(devices)} devices"
    return Fleet("".join(vendors), tuple(devices), (trail,))
