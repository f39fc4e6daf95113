"""The other machines of a run, and the workers that they get."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

import pytest

from ...compat import xdist_controller
from ...config.numprocesses import shows_only
from ...config.settings import GpuSettings, MachineSettings, gpu_settings_of, machine_settings_of
from ...gpu.devices import Fleet
from ...gpu.slices.distribution import worker_count
from ...gpu.slices.environment import names_read
from ...own import own_builtins
from ...system import paths
from ..machines.clients import Client, NotReachedError, temporary_folder
from ..machines.fitting import twins
from ..machines.openings import Leftover, MakeGateway, Openings
from ..machines.reaching import Questions, Reached, machines_of, needed_by, passed_on, reach
from ..schedule.machines import MACHINE_KEY
from .gpus import fleet_of, stated_gpus

if TYPE_CHECKING:
    from execnet import Gateway, XSpec

own_builtins(globals())


@dataclass(frozen=True)
class KnownMachine:
    """What is known of one of the machines.

    :param fleet: its GPUs, of which these `settings` speak.
    """

    reached: Reached
    settings: GpuSettings
    fleet: Fleet


class Elsewhere:
    """The machines of a run."""

    def __init__(
        self, config: pytest.Config, places: Mapping[str, KnownMachine], openings: Openings
    ) -> None:
        self._config = config
        self.places = places
        self.openings = openings
        self._make: MakeGateway | None = None

    @property
    def notices(self) -> list[str]:
        return [
            f"fkit: {line}"
            for line in twins({n: p.reached.answers for n, p in self.places.items()})
        ]

    def serves(self, spec: XSpec) -> bool:
        """Whether a worker is on one of them."""
        return self.openings.serves(spec)

    def begin(self, specs: Sequence[XSpec]) -> None:
        """Begin to open the gateways of these workers."""
        if self._make is None:
            self._make = xdist_controller.replace_makegateway(self._config, self._open)
        self.openings.begin(specs, self._make)

    def _open(self, spec: XSpec) -> Gateway:
        """What execnet's makegateway() does, within limits for other machines.

        :raises pytest.exit.Exception: if a machine that was asked before is not reached now.
        """
        assert self._make is not None
        if not self.serves(spec):
            return self._make(spec)
        try:
            return self.openings.take(spec, self._make)
        except NotReachedError as error:
            name = getattr(spec, MACHINE_KEY)
            raise pytest.exit.Exception(
                f"pytest-fkit: {spec.id} can't be started on {name}: {error}",
                pytest.ExitCode.INTERRUPTED,
            ) from None

    def reopen(self, spec: XSpec, left: Leftover | None, then: Callable[[str], None]) -> None:
        """Open another gateway in the place of one that is lost; see :meth:`Openings.reopen`."""
        assert self._make is not None
        xdist_controller.new_id(self._config, spec)
        self.openings.reopen(spec, self._make, left, then)

    def reached(self, spec: XSpec) -> Reached:
        """The machine of a worker that is on one of them."""
        return self.places[str(getattr(spec, MACHINE_KEY))].reached

    def variables(self, spec: XSpec) -> Mapping[str, str]:
        """Variables that a worker gets from the controller."""
        if not self.serves(spec):
            return {}
        return {**passed_on(), "FKIT_MACHINE": str(getattr(spec, MACHINE_KEY))}


def prepare(config: pytest.Config, workers: int | str | None) -> Elsewhere | None:
    """Reach the machines that the user wants, if any, and give xdist workers there.

    :param workers: what ``--fkit-workers`` says.
    :raises pytest.UsageError: naming the machines that don't fit, and what to do.
    """
    settings = machine_settings_of(config)
    if settings.machines is None:
        return None
    wanted = _wanted_workers(config, settings, workers)
    if shows_only(config.option) or config.option.collectonly:
        return None
    machines = machines_of(settings, settings.machines)
    gpus = gpu_settings_of(config, config.option)
    stated = {each.name: stated_gpus(config, gpus, each.name) for each in machines}
    questions = Questions(
        needed_by(config),
        names_read(gpus.env),
        {name: gpus.gpus_timeout if fleet is None else 0 for name, (fleet, _) in stated.items()},
    )
    folder = temporary_folder()
    config.add_cleanup(lambda: paths.remove_tree(folder))
    places = {}
    for reached in reach(settings, machines, questions, folder):
        name = reached.machine.name
        fleet, its_settings = stated[name]
        places[name] = KnownMachine(reached, its_settings, fleet or fleet_of(reached.told))
    return Elsewhere(config, places, _add_workers(config, settings, places, wanted, folder))


def _wanted_workers(
    config: pytest.Config, settings: MachineSettings, workers: int | str | None
) -> int | None:
    """How many workers each machine is to have, None for as many as it has slices, or cores.

    :raises pytest.UsageError: for what contradicts other machines.
    """
    said = f"pytest-fkit: {settings.source}={settings.machines}"
    if not config.pluginmanager.hasplugin("xdist"):
        raise pytest.UsageError(f"{said}: pytest-xdist is disabled; it starts the workers")
    given = config.option.numprocesses
    if given == 0:
        raise pytest.UsageError(
            f"{said}: -n0 runs all tests in this process; leave one of them out"
        )
    if given is None and config.option.tx:
        raise pytest.UsageError(f"{said}: --tx names workers, too; leave one of them out")
    if None not in (given, workers) and given != workers:
        raise pytest.UsageError(
            f"pytest-fkit: -n {given} and --fkit-workers={workers} contradict each other; "
            "they mean the same, give one of them"
        )
    number = workers if given is None else given
    return number if isinstance(number, int) else None


def _slices(place: KnownMachine) -> int:
    """How many slices of GPUs a machine has.

    :raises pytest.UsageError: if there is none of the GPUs that the user named.
    """
    try:
        return worker_count(place.fleet, place.settings, place.reached.told["environ"])
    except pytest.UsageError as error:
        raise pytest.UsageError(f"{error} (on {place.reached.machine.name})") from None


def _add_workers(
    config: pytest.Config,
    settings: MachineSettings,
    places: Mapping[str, KnownMachine],
    wanted: int | None,
    folder: str,
) -> Openings:
    """Have xdist start workers there; what opens their gateways."""
    python = settings.machines_python or (sys.executable,)
    clients: list[Client] = []
    for place in places.values():
        reached = place.reached
        slices = _slices(place)
        number = wanted or slices or reached.answers.cores
        for _ in range(min(number, config.option.maxprocesses or number)):
            clients.append(Client(reached.machine, python, f"{folder}/worker-{len(clients)}"))
    options: Any = config.option
    options.tx = [client.specification for client in clients]
    options.numprocesses = None
    if options.dist == "no":
        options.dist = "load"
    by_python = {client.specification.partition("//python=")[2]: client for client in clients}
    directory = str(config.invocation_params.dir)
    return Openings(by_python, settings.machines_timeout, directory)
