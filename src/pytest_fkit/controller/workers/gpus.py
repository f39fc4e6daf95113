"""The GPUs of this machine: found, distributed among its workers, and shown to the user."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Sequence

import pytest

from ...config.first_environment import environment
from ...config.numprocesses import run_alone, shows_only
from ...config.settings import ALONE, GpuSettings, gpu_settings_of
from ...gpu.devices import Device, Fleet, from_wire
from ...gpu.machine import Machine
from ...gpu.slices import ports
from ...gpu.slices.distribution import Distribution, distribute, ownership, worker_count
from ...gpu.slices.environment import Environment, owned_gpus, wants_port
from ...gpu.slices.launchers import rank_of
from ...gpu.slices.ownership import OWNED
from ...gpu.vendors.detection import VENDORS, detect, may_have_gpus
from ...gpu.vendors.vendor import Entry
from ...own import os, own_builtins
from ..schedule.machines import Seat, count_workers, cpu_workers, proxies, seats, seats_of_run

own_builtins(globals())

_AUTO = "PYTEST_XDIST_AUTO_NUM_WORKERS"


@dataclass
class Gpus:
    """The GPUs of this machine, as far as this run needs them.

    :param fleet: empty if no worker runs on this machine.
    :param answering: how many plugins implement pytest_fkit_gpus.
    :param planned: the number of workers that a run would have, where ``--collect-only`` starts
        none.
    :param groups: the seats among which the same GPUs are distributed, and how; once the number of
        workers is known.
    """

    settings: GpuSettings
    fleet: Fleet = field(default_factory=Fleet)
    answering: int = 0
    planned: int = 0
    notices: list[str] = field(default_factory=list)
    groups: list[tuple[list[Seat], Distribution]] = field(default_factory=list)

    @property
    def all_notices(self) -> list[str]:
        return [
            *self.fleet.notices,
            *self.notices,
            *(line for _, distribution in self.groups for line in distribution.notices),
        ]

    def distribute(self, found: Sequence[Seat]) -> None:
        """Distribute the GPUs of this machine.

        :param found: the seats of all workers, on all machines.
        :raises pytest.UsageError: if there is none of the GPUs that the user named.
        """
        groups: dict[object, list[Seat]] = defaultdict(list)
        for seat in found:
            if not seat.machine and not seat.cpu:
                groups[seat.group].append(seat)
        for group in groups.values():
            environ = {**environment(), **dict(group[0].environ)}
            numbers = [seat.number for seat in group]
            distribution = distribute(self.fleet, self.settings, environ, numbers)
            self.groups.append((group, distribution))


GPUS: pytest.StashKey[Gpus] = pytest.StashKey()
"""In ``config.stash`` of the controller, or of pytest itself at ``-n0``."""


# --- before xdist counts its workers ---


def prepare(config: pytest.Config, workers_option: int | str | None) -> None:
    """Find the GPUs, and let them say how many workers ``auto`` means.

    :param workers_option: what ``--fkit-workers`` says.
    :raises pytest.UsageError: naming what the user said and what it takes.
    """
    options = config.option
    if shows_only(options):
        return
    if GPUS in config.stash:  # from prepare_alone
        gpus = config.stash[GPUS]
        if _answering(config) > gpus.answering:
            gpus.notices.append(
                "pytest_fkit_gpus in a conftest.py is not called at -n0, where GPUs have to be "
                "known earlier; use a plugin, for example one that -p loads"
            )
        return
    if run_alone(options):
        prepare_alone(config, options)
        return
    gpus = Gpus(gpu_settings_of(config, options))
    is_local = any(not seat.machine for seat in seats(options.tx, proxies(config)))
    if options.numprocesses or is_local or (options.tx and gpus.settings.cpu_workers):
        gpus = _find(config, gpus.settings)
        slices = _slice_count(gpus)
        if options.numprocesses == "auto" and not os.environ.get(_AUTO):
            options.numprocesses = _others_auto(config) or slices or "auto"
    elif not options.tx:  # --collect-only
        gpus = _find(config, gpus.settings)
        gpus.planned = _planned(config, workers_option, _slice_count(gpus))
    config.stash[GPUS] = gpus


def _slice_count(gpus: Gpus) -> int:
    return worker_count(gpus.fleet, gpus.settings, environment())


def _planned(config: pytest.Config, workers: int | str | None, slices: int) -> int:
    """How many workers a run would have where pytest only shows what it would run."""
    if workers != "auto":
        return int(workers or 1)
    variable = os.environ.get(_AUTO, "")
    return int(variable) if variable.isdigit() else _others_auto(config) or slices


def _others_auto(config: pytest.Config) -> int | None:
    """What a plugin or a conftest.py answers for ``auto``, other than xdist itself."""
    ask = config.pluginmanager.subset_hook_caller(
        "pytest_xdist_auto_num_workers", remove_plugins=[sys.modules["xdist.plugin"]]
    )
    answer: int | None = ask(config=config)
    return answer


def _find(config: pytest.Config, settings: GpuSettings) -> Gpus:
    """The GPUs of this machine.

    :raises pytest.UsageError: if a plugin's answer makes no sense.
    """
    fleet, settings = stated_gpus(config, settings, "")
    if fleet is None and settings.gpus == "auto":
        fleet = _left_to_launcher()
    if fleet is None:
        fleet = detect(settings.gpus_timeout)
    return Gpus(settings, fleet, _answering(config))


def _left_to_launcher() -> Fleet | None:
    """No GPUs if a launcher distributes them among its ranks, else None."""
    rank = rank_of(environment())
    if not rank:
        return None
    line = (
        f"{rank}: the GPUs are left to the launcher of this rank, masks stay as they are "
        f"(--fkit-gpus=IDS overrides this)"
    )
    return Fleet(trail=(line,), notices=(line,) if may_have_gpus(Machine.here()) else ())


def _answering(config: pytest.Config) -> int:
    return len(config.hook.pytest_fkit_gpus.get_hookimpls())


def stated_gpus(
    config: pytest.Config, settings: GpuSettings, machine: str
) -> tuple[Fleet | None, GpuSettings]:
    """The GPUs of a machine, if the user or a plugin states them, and the settings that follow.

    :param machine: "" for this machine, else its address.
    :return: None for GPUs that have to be detected.
    :raises pytest.UsageError: if a plugin's answer makes no sense.
    """
    if settings.gpus == "none":
        return Fleet(trail=(f"{settings.source}: not looked for",)), settings
    answer: Any = config.hook.pytest_fkit_gpus(config=config, host=machine)
    if answer is None:
        return None, settings
    kinds = {type(each) for each in answer} if isinstance(answer, (list, tuple)) else {None}
    if kinds <= {Device}:
        return _stated_fleet(answer), settings
    if not kinds <= {int, str}:
        raise pytest.UsageError(
            f"pytest-fkit: pytest_fkit_gpus answered {answer!r}: expected a list of devices, or ids"
        )
    if settings.gpus != "auto":
        return None, settings
    ids = tuple(str(each) for each in answer)
    return None, settings._replace(gpus=ids, source=f"pytest_fkit_gpus: {','.join(ids)}")


def fleet_of(answer: Mapping[str, Any]) -> Fleet:
    """The GPUs of another machine.

    :param answer: of :func:`pytest_fkit.gpu.slices.handshake.answer`, there.
    """
    if answer["fleet"] is not None:
        return from_wire(json.loads(answer["fleet"]))
    problem = f"GPUs can't be looked for: {answer['problem']}"
    return Fleet(trail=(problem,), notices=(problem,))


def _stated_fleet(devices: Sequence[Device]) -> Fleet:
    vendors = list(dict.fromkeys(device.vendor for device in devices))
    if len(vendors) > 1 or not set(vendors) <= set(VENDORS):
        raise pytest.UsageError(
            f"pytest-fkit: pytest_fkit_gpus: devices of {', '.join(map(repr, vendors))}: expected "
            f"one of {', '.join(VENDORS)} for all"
        )
    trail = f"pytest_fkit_gpus: {len(devices)} devices"
    return Fleet("".join(vendors), tuple(devices), (trail,))


# --- at -n0 ---


def prepare_alone(config: pytest.Config, options: Namespace) -> None:
    """At ``-n0``: find the GPUs, and give this process the environment of the only worker.

    :raises pytest.UsageError: naming what the user said and what it takes.
    """
    if run_alone(options) and not shows_only(options):
        # With one worker there is nobody to share with.
        gpus = _find(config, gpu_settings_of(config, options)._replace(gpu_slots=1))
        gpus.distribute([Seat(0, ALONE)])
        [(_, distribution)] = gpus.groups
        gpus.notices += _set_own_environment(config, gpus.settings, distribution)
        config.stash[GPUS] = gpus


def _set_own_environment(
    config: pytest.Config, settings: GpuSettings, distribution: Distribution
) -> list[str]:
    """Set the variables of the only worker, until this pytest has ended.

    :return: what the user has to know about it.
    """
    inherited = dict(os.environ)
    [place] = distribution.assignment.places
    port, notices = 0, []
    if place.slice or wants_port(settings.templates):
        try:
            block = ports.claim()
        except ports.NoPortsError as error:
            notices.append(f"there is no FKIT_PORT_BASE: {error}")
        else:
            config.add_cleanup(block.release)
            port = block.base
    most = distribution.visible.most
    own = Environment(place, inherited, settings.amd_mask, port, _cores(), settings.templates, most)
    variables = own.variables()
    config.add_cleanup(_restoring(variables, inherited))
    os.environ.update(variables)
    if place.slice:
        config.stash[OWNED] = owned_gpus(
            own, distribution.assignment.unowned, distribution.visible.entries
        )
    return notices


def _restoring(variables: Mapping[str, str], before: Mapping[str, str]) -> Callable[[], None]:
    def restore() -> None:
        for name, text in variables.items():
            if os.environ.get(name) != text:  # somebody else has set it since
                continue
            del os.environ[name]
            if name in before:
                os.environ[name] = before[name]

    return restore


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- once xdist has read its options ---


def distribute_gpus(config: pytest.Config) -> None:
    """Distribute the GPUs of this machine, and add the workers that get none.

    :raises pytest.UsageError: if there is none of the GPUs that the user named.
    """
    gpus = config.stash.get(GPUS, None)
    if gpus is not None and not gpus.groups:
        _add_cpu_workers(config, gpus.settings)
        gpus.distribute(_seats(config, gpus))


def _add_cpu_workers(config: pytest.Config, settings: GpuSettings) -> None:
    if config.getoption("dist", "no") == "each":
        if settings.cpu_workers:
            raise pytest.UsageError(
                "pytest-fkit: --fkit-cpu-workers: with --dist=each every worker runs every test; "
                "leave out one of them"
            )
        if settings.gpu_slots > 1:
            raise pytest.UsageError(
                "pytest-fkit: --fkit-gpu-slots: with --dist=each every worker runs every test, "
                "whatever others need of its GPUs; leave out one of them"
            )
    if seats_of_run(config):
        config.option.tx = [*config.option.tx, *cpu_workers(settings.cpu_workers)]


def _seats(config: pytest.Config, gpus: Gpus) -> list[Seat]:
    if not gpus.planned:
        return seats_of_run(config)
    return seats(["popen"] * gpus.planned + cpu_workers(gpus.settings.cpu_workers), [])


def header_lines(config: pytest.Config) -> tuple[list[str], str]:
    """Notices and, if asked for, how GPUs were found; and the workers with their GPUs, or ""."""
    gpus = config.stash.get(GPUS, None)
    if gpus is None:
        return [], ""
    lines = gpus.all_notices
    if config.getoption("verbose", 0) >= 2:
        # The trail contains the notices of detection.
        lines = [*gpus.fleet.trail, *(line for line in lines if line not in gpus.fleet.trail)]
    owners = [
        ownership(distribution.visible, distribution.assignment, [seat.name for seat in group])
        for group, distribution in gpus.groups
        if distribution.visible.entries
    ]
    found = _seats(config, gpus)
    without = [seat.name for seat in found if seat.cpu]
    if owners and without:
        owners.append(f"{' and '.join(without)} without GPUs")
    text = f"{count_workers(len(found))}, {'; '.join(owners)}" if owners else ""
    return [f"fkit: {line}" for line in lines], text


def of_run(config: pytest.Config) -> tuple[list[Entry], dict[str, list[str]]]:
    """The GPUs of this machine that the run may use, and the ids of each local worker's."""
    gpus = config.stash.get(GPUS, None)
    groups = [] if gpus is None else gpus.groups
    entries = {entry.id: entry for _, given in groups for entry in given.visible.entries}
    slices = {
        seat.name: list(place.ids)
        for found, given in groups
        for seat, place in zip(found, given.assignment.places)
        if place.slice
    }
    return list(entries.values()), slices


def notices(config: pytest.Config) -> list[str]:
    """What the user has to know even where pytest shows no header."""
    gpus = config.stash.get(GPUS, None)
    return [] if gpus is None else [f"fkit: {line}" for line in gpus.all_notices]


def nvidia_devices(config: pytest.Config) -> dict[str, Device]:
    """NVIDIA's GPUs of this machine that the run may use, by id; none if no worker owns any."""
    gpus = config.stash.get(GPUS, None)
    return {
        entry.id: entry.device
        for _, distribution in ([] if gpus is None else gpus.groups)
        if any(place.slice for place in distribution.assignment.places)
        for entry in distribution.visible.entries
        if entry.device.vendor == "nvidia"
    }
