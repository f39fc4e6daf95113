"""Which GPUs there are for this run, and what the user reads about them."""

from __future__ import annotations

from argparse import Namespace
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Sequence

import pytest

from ...config.first_environment import environment
from ...config.numprocesses import run_alone, shows_only
from ...config.settings import GpuSettings, gpu_settings_of
from ...gpu.devices import Device, Fleet
from ...gpu.machine import Machine
from ...gpu.slices.distribution import Distribution, distribute, ownership, rank_of, worker_count
from ...gpu.vendors.detection import detect, may_have_gpus
from ...own import own_builtins
from ..schedule.machines import Seat, cpu_workers, proxies, seats
from . import workers
from .in_process import take_place
from .stated_gpus import answered

own_builtins(globals())

ALONE = Seat(0, "main")
"""The pytest process itself, at ``-n0``."""


@dataclass
class Gpus:
    """The GPUs of this machine, as far as this run needs them.

    :param fleet: none if no worker runs on this machine.
    :param answering: how many plugins implement pytest_fkit_gpus.
    :param planned: the number of workers that a run would have, where ``--collect-only`` starts
        none.
    :param groups: the seats among which the same GPUs are distributed, with these; once it is known
        how many workers there are.
    """

    settings: GpuSettings
    fleet: Fleet = field(default_factory=Fleet)
    answering: int = 0
    planned: int = 0
    notices: list[str] = field(default_factory=list)
    groups: list[tuple[list[Seat], Distribution]] = field(default_factory=list)

    @property
    def all_notices(self) -> list[str]:
        """What a user has to know."""
        return [
            *self.fleet.notices,
            *self.notices,
            *(line for _, distribution in self.groups for line in distribution.notices),
        ]

    def settle(self, found: Sequence[Seat]) -> None:
        """Distribute the GPUs of this machine.

        :param found: the seats of all workers, on all machines.
        :raises pytest.UsageError: if there is none of the GPUs that the user named.
        """
        groups: dict[object, list[Seat]] = defaultdict(list)
        for seat in found:
            if not seat.host and not seat.cpu:
                groups[seat.group].append(seat)
        self.groups = [
            (
                group,
                distribute(
                    self.fleet,
                    self.settings,
                    {**environment(), **dict(group[0].environ)},
                    [seat.number for seat in group],
                ),
            )
            for group in groups.values()
        ]


KEY: pytest.StashKey[Gpus] = pytest.StashKey()
"""Where they are, in ``config.stash`` of the controller, or of pytest itself at ``-n0``."""


def prepare(config: pytest.Config, workers_option: int | str | None) -> None:
    """Find the GPUs, and let them say how many workers ``auto`` means; before xdist counts.

    :param workers_option: what ``--fkit-workers`` says.
    :raises pytest.UsageError: naming what the user said and what it takes.
    """
    options = config.option
    if shows_only(options):
        return
    if KEY in config.stash:  # from prepare_alone
        gpus = config.stash[KEY]
        if len(_answering(config)) > gpus.answering:
            gpus.notices.append(
                "pytest_fkit_gpus in a conftest.py is not asked at -n0, where GPUs have to be "
                "known before; a plugin, loaded by -p for example, is"
            )
        return
    if run_alone(options):
        prepare_alone(config, options)
        return
    gpus = Gpus(gpu_settings_of(config, options))
    here = any(not seat.host for seat in seats(options.tx, proxies(config)))
    if options.numprocesses or here or (options.tx and gpus.settings.cpu_workers):
        gpus = find(config, gpus.settings)
        workers.decide_auto(config, _worker_count(gpus))
    elif not options.tx:  # --collect-only
        gpus = find(config, gpus.settings)
        gpus.planned = workers.planned(config, workers_option, _worker_count(gpus))
    config.stash[KEY] = gpus


def prepare_alone(config: pytest.Config, options: Namespace) -> None:
    """At ``-n0``: find the GPUs and set the variables of the only worker.

    :raises pytest.UsageError: naming what the user said and what it takes.
    """
    if run_alone(options) and not shows_only(options):
        # Nobody is there to share with.
        gpus = find(config, replace(gpu_settings_of(config, options), gpu_slots=1))
        gpus.settle([ALONE])
        [(_, distribution)] = gpus.groups
        gpus.notices += take_place(config, gpus.settings, distribution)
        config.stash[KEY] = gpus


def _worker_count(gpus: Gpus) -> int:
    return worker_count(gpus.fleet, gpus.settings, environment())


def find(config: pytest.Config, settings: GpuSettings) -> Gpus:
    """The GPUs of this machine.

    :raises pytest.UsageError: if a plugin's answer makes no sense.
    """
    fleet, settings = answered(config, settings, "")
    if fleet is None and settings.gpus == "auto":
        fleet = _left_to_launcher()
    if fleet is None:
        fleet = detect(settings.gpus_timeout)
    return Gpus(settings, fleet, len(_answering(config)))


def _left_to_launcher() -> Fleet | None:
    """No GPUs, where a launcher distributes them among its ranks; else None."""
    rank = rank_of(environment())
    if not rank:
        return None
    line = (
        f"{rank}: the GPUs are left to who started this rank, masks stay as they are "
        f"(--fkit-gpus=IDS takes some)"
    )
    return Fleet(trail=(line,), notices=(line,) if may_have_gpus(Machine.here()) else ())


def _answering(config: pytest.Config) -> Sequence[object]:
    implementations: Sequence[object] = config.hook.pytest_fkit_gpus.get_hookimpls()
    return implementations


def settle(config: pytest.Config) -> None:
    """Distribute the GPUs of this machine, once xdist has read its options.

    :raises pytest.UsageError: if there is none of the GPUs that the user named.
    """
    gpus = config.stash.get(KEY, None)
    if gpus is not None and not gpus.groups:
        _add_cpu_workers(config, gpus)
        gpus.settle(_seats(config, gpus))


def _add_cpu_workers(config: pytest.Config, gpus: Gpus) -> None:
    if gpus.settings.cpu_workers and config.getoption("dist", "no") == "each":
        raise pytest.UsageError(
            "pytest-fkit: --fkit-cpu-workers: with --dist=each every worker runs every test; "
            "leave one of them away"
        )
    if gpus.settings.gpu_slots > 1 and config.getoption("dist", "no") == "each":
        raise pytest.UsageError(
            "pytest-fkit: --fkit-gpu-slots: with --dist=each every worker runs every test, "
            "whatever others need of its GPUs; leave one of them away"
        )
    if seats_of_run(config):
        config.option.tx = [*config.option.tx, *cpu_workers(gpus.settings.cpu_workers)]


def _seats(config: pytest.Config, gpus: Gpus) -> list[Seat]:
    if not gpus.planned:
        return seats_of_run(config)
    return seats(["popen"] * gpus.planned + cpu_workers(gpus.settings.cpu_workers), [])


def seats_of_run(config: pytest.Config) -> list[Seat]:
    """Where workers are going to be; none at ``-n0``."""
    tx = config.getoption("tx", None) or []
    if config.getoption("dist", "no") == "no":
        return []
    return seats(tx, proxies(config))


def header_lines(config: pytest.Config) -> tuple[list[str], str]:
    """Notices and, if asked for, how GPUs were found; and the workers with their GPUs, or ""."""
    gpus = config.stash.get(KEY, None)
    if gpus is None:
        return [], ""
    lines = gpus.all_notices
    if config.getoption("verbose", 0) >= 2:
        # The notices of detection are lines of its trail.
        lines = [*gpus.fleet.trail, *(line for line in lines if line not in gpus.fleet.trail)]
    owners = []
    for group, distribution in gpus.groups:
        if distribution.visible.entries:
            names = [seat.name for seat in group]
            owners.append(ownership(distribution.visible, distribution.assignment, names))
    found = _seats(config, gpus)
    without = [seat.name for seat in found if seat.cpu]
    if owners and without:
        owners.append(f"{' and '.join(without)} without GPUs")
    text = f"{workers.count_text(len(found))}, {'; '.join(owners)}" if owners else ""
    return [f"fkit: {line}" for line in lines], text


def notices(config: pytest.Config) -> list[str]:
    """What a user has to know, also where pytest shows no header."""
    gpus = config.stash.get(KEY, None)
    return [] if gpus is None else [f"fkit: {line}" for line in gpus.all_notices]


def nvidia_devices(config: pytest.Config) -> dict[str, Device]:
    """NVIDIA's GPUs of this machine that the run may use, by id; none where no worker owns any."""
    gpus = config.stash.get(KEY, None)
    groups = [] if gpus is None else [given for _, given in gpus.groups]
    return {
        entry.id: entry.device
        for given in groups
        if any(place.slice for place in given.assignment.places)
        for entry in given.visible.entries
        if entry.device.vendor == "nvidia"
    }
