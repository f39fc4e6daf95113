"""At ``-n0`` the pytest process itself takes a worker's place, and gets its environment."""

from __future__ import annotations

from typing import Callable, Mapping

import pytest

from ...config.settings import GpuSettings
from ...gpu.slices import ports
from ...gpu.slices.distribution import Distribution
from ...gpu.slices.environment import Environment, owned_gpus, wants_port
from ...gpu.slices.ownership import KEY
from ...own import os, own_builtins

own_builtins(globals())


def take_place(
    config: pytest.Config, settings: GpuSettings, distribution: Distribution
) -> list[str]:
    """Set the variables of the only worker, until this pytest is over.

    :return: what a user has to know about it.
    """
    inherited = dict(os.environ)
    [place] = distribution.assignment.places
    port, notices = 0, []
    if place.slice or wants_port(settings.env):
        try:
            block = ports.claim()
        except ports.NoPortsError as error:
            notices.append(f"there is no FKIT_PORT_BASE: {error}")
        else:
            config.add_cleanup(block.release)
            port = block.base
    environment = Environment(
        place,
        inherited,
        settings.amd_mask,
        port,
        _cores(),
        settings.env,
        distribution.visible.most,
    )
    told = environment.variables()
    config.add_cleanup(_restoring(told, inherited))
    os.environ.update(told)
    if place.slice:
        config.stash[KEY] = owned_gpus(
            environment, distribution.assignment.unowned, distribution.visible.entries
        )
    return notices


def _restoring(told: Mapping[str, str], before: Mapping[str, str]) -> Callable[[], None]:
    def restore() -> None:
        for name, text in told.items():
            if os.environ.get(name) != text:  # somebody else's by now
                continue
            del os.environ[name]
            if name in before:
                os.environ[name] = before[name]

    return restore


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
