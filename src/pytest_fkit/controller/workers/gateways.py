"""Gives new gateways their GPUs before pytest starts in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

import execnet
import pytest

from ...compat import xdist_controller
from ...config import first_environment as inherited
from ...config.settings import GpuSettings
from ...gpu.devices import Fleet
from ...gpu.slices import handshake, ports
from ...gpu.slices.distribution import Distribution, Place, distribute, ownership
from ...gpu.slices.environment import (
    Environment,
    gang_variables,
    names_read,
    owned_gpus,
    wants_port,
)
from ...gpu.slices.ownership import GPUS_TOLD, MACHINE_TOLD, SEVERAL, Owned
from ...gpu.vendors.vendor import Entry
from ...named_tuple import NamedTuple
from ...own import own_builtins
from ..schedule.machines import CLOCK_AHEAD, Seat, count_workers, id_of, proxies, seats_of
from .gpus import Gpus, fleet_of, stated_gpus

if TYPE_CHECKING:
    from execnet import Gateway, XSpec
    from xdist.workermanage import WorkerController

    from ..machines.openings import Leftover
    from .elsewhere import Elsewhere

own_builtins(globals())

_ANSWER = 60.0
"""Seconds within which a gateway has to answer, without the time of detection."""


@dataclass
class _Machine:
    """A machine with workers.

    :param fleet: None until its GPUs were looked for.
    """

    settings: GpuSettings
    fleet: Fleet | None = None


class _Worker(NamedTuple):
    pid: int
    environment: Environment
    distribution: Distribution
    answer: Mapping[str, Any]
    machine: str

    @property
    def owned(self) -> Owned:
        owned = owned_gpus(self.environment, visible=self.distribution.visible.entries)
        return owned._replace(machine=self.machine)


class LostError(Exception):
    """A machine that has just answered does not any more; the text says why."""


class Gateways:
    """Plugin of the controller.

    :param elsewhere: the other machines of the run, if there are any.
    """

    def __init__(
        self,
        config: pytest.Config,
        gpus: Gpus,
        show: Callable[[str], None],
        elsewhere: Elsewhere | None,
    ) -> None:
        self._config = config
        self._settings = gpus.settings
        self._show = show
        self._runs = False
        self._machines = {"": _Machine(gpus.settings, gpus.fleet)}
        self._elsewhere = elsewhere
        if elsewhere is not None:
            for name, place in elsewhere.places.items():
                self._machines[name] = _Machine(place.settings, place.fleet)
        # By the object: execnet compares specifications by their text. A worker that replaces
        # another has the same object.
        self._seats: dict[int, Seat] = {}
        self._specs: list[XSpec] = []
        self._introduced: set[object] = set()
        self._blocks: dict[int, ports.Block] = {}
        self._workers: dict[str, _Worker] = {}

    # --- seats ---

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self, specs: list[XSpec]) -> None:
        self._specs = [*self._specs, *specs]
        found = seats_of(self._specs, proxies(self._config))
        self._seats = {id(spec): seat for spec, seat in zip(self._specs, found)}
        if self._elsewhere is not None:
            self._elsewhere.begin(specs)

    def _seat(self, spec: XSpec) -> Seat:
        if id(spec) not in self._seats:  # another plugin starts it
            self.pytest_xdist_setupnodes([spec])
        return self._seats[id(spec)]

    def _machine(self, address: str) -> _Machine:
        if address not in self._machines:
            fleet, settings = stated_gpus(self._config, self._settings, address)
            self._machines[address] = _Machine(settings, fleet)
        return self._machines[address]

    # --- gateways ---

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_newgateway(self, gateway: Gateway) -> None:
        """Set the variables of the worker that is to start in it.

        :raises pytest.UsageError: if there is none of the GPUs that the user named.
        """
        seat = self._seat(gateway.spec)
        try:
            self._workers[gateway.id] = self._set_up(gateway, seat, self._machine(seat.machine))
        except (execnet.RemoteError, execnet.TimeoutError, EOFError, OSError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            if self._runs:
                gateway.exit()
                raise LostError(reason) from None
            pytest.exit(
                f"pytest-fkit: {gateway.id} can't be given its environment: {reason}",
                pytest.ExitCode.INTERRUPTED,
            )

    def _set_up(self, gateway: Gateway, seat: Seat, machine: _Machine) -> _Worker:
        settings = machine.settings
        limit = settings.gpus_timeout if machine.fleet is None else 0.0
        names = names_read(settings.templates)
        answer = _call(gateway, _ANSWER + limit, "answer", names, limit)
        if machine.fleet is None:
            machine.fleet = fleet_of(answer)
        environ = answer["environ"]
        if gateway.spec.popen and not seat.machine:
            # It was started with what conftest files had left.
            environ = {**inherited.environment(), **environ}
        place, distribution = self._place(seat, settings, machine.fleet, environ)
        port = 0
        if place.slice or wants_port(settings.templates):
            port = self._port(gateway, seat)
        workers_there = sum(each.machine == seat.machine for each in self._seats.values())
        environment = Environment(
            place,
            environ,
            settings.amd_mask,
            port,
            max(1, answer["cores"] // workers_there),
            settings.templates,
            distribution.visible.most,
        )
        variables = environment.variables()
        if self._elsewhere is not None:
            variables = {**self._elsewhere.variables(gateway.spec), **variables}
        _call(gateway, _ANSWER, "set", variables)
        if seat.machine and seat.group not in self._introduced:
            self._introduced.add(seat.group)
            self._introduce(seat, machine.fleet, distribution)
        return _Worker(answer["pid"], environment, distribution, answer, seat.machine)

    def _place(
        self, seat: Seat, settings: GpuSettings, fleet: Fleet, environ: Mapping[str, str]
    ) -> tuple[Place, Distribution]:
        numbers = [each.number for each in self._group(seat)]
        distribution = distribute(fleet, settings, environ, numbers)
        if seat.cpu:
            seen = distribution.visible
            return Place(seat.number, seen.vendor, hidden=bool(seen.entries)), distribution
        return distribution.assignment.places[numbers.index(seat.number)], distribution

    def _group(self, seat: Seat) -> list[Seat]:
        seats = self._seats.values()
        return [each for each in seats if each.group == seat.group and not each.cpu]

    def _port(self, gateway: Gateway, seat: Seat) -> int:
        if seat.machine:
            channel = gateway.remote_exec(ports)
            port = int(channel.receive(_ANSWER))
            channel.waitclose(_ANSWER)
            return port
        if seat.number not in self._blocks:
            try:
                self._blocks[seat.number] = ports.claim()
            except ports.NoPortsError as error:
                self._show(f"fkit: {seat.name} gets no FKIT_PORT_BASE: {error}")
                return 0
        return self._blocks[seat.number].base

    def _introduce(self, seat: Seat, fleet: Fleet, distribution: Distribution) -> None:
        """Say about a remote machine what the header says about this one."""
        verbose = self._config.getoption("verbose", 0) >= 2
        for line in (*(fleet.trail if verbose else fleet.notices), *distribution.notices):
            self._show(f"fkit: {seat.machine}: {line}")
        if distribution.visible.entries:
            names = [each.name for each in self._group(seat)]
            text = ownership(distribution.visible, distribution.assignment, names)
            self._show(f"fkit: {seat.machine}: {count_workers(len(names))}, {text}")

    # --- other machines ---

    def is_elsewhere(self, node: WorkerController) -> bool:
        """Whether a worker is on one of the machines of ``--fkit-machines``."""
        return self._elsewhere is not None and self._elsewhere.serves(node.gateway.spec)

    def lag(self, node: WorkerController) -> float:
        """Seconds that a message to a worker elsewhere and its answer take; 0 where unknown."""
        spec = node.gateway.spec
        if self._elsewhere is None or not self._elsewhere.serves(spec):
            return 0.0
        return self._elsewhere.reached(spec).lag

    def reopen(self, node: WorkerController, then: Callable[[str], None]) -> None:
        """Open a gateway for the worker that is to take a lost one's place elsewhere.

        :param then: called in a thread, once it is there, or with why it is not.
        """
        assert self._elsewhere is not None
        self._elsewhere.reopen(node.gateway.spec, self._left(node), then)

    def abandon(self, node: WorkerController) -> None:
        """Let a worker go: it is not needed any more."""
        assert self._elsewhere is not None
        self._elsewhere.openings.abandon(node.gateway.spec)

    def clean(self, node: WorkerController) -> None:
        """End what may be left elsewhere of a lost worker that is not replaced."""
        left = self._left(node)
        if self._elsewhere is not None and left is not None:
            self._elsewhere.openings.clean(node.gateway.spec, left)

    def _left(self, node: WorkerController) -> Leftover | None:
        from ..machines.openings import Leftover  # imported where there are other machines

        worker = self._workers.get(node.gateway.id)
        if worker is None:
            return None
        return Leftover(worker.pid, worker.answer["began"], worker.answer["step"])

    # --- what others ask ---

    def variables(self, name: str, gpus: Sequence[str]) -> dict[str, str]:
        """What has to be set in a process of a worker so that it sees these GPUs, not its own.

        :param gpus: of its machine, as in "machine/id".
        :raises ValueError: see :func:`pytest_fkit.gpu.slices.environment.gang_variables`.
        """
        worker = self._workers[name]
        entries = {entry.id: entry for entry in worker.distribution.visible.entries}
        return gang_variables(worker.environment, [entries[id_of(gpu)] for gpu in gpus])

    def unowned(self) -> list[str]:
        """The GPUs of this machine that belong to no worker, as in "machine/id"."""
        local = (each for each in self._seats.values() if not each.machine and not each.cpu)
        found = {
            f"/{entry.id}": None
            for seat in local
            if seat.name in self._workers
            for entry in self._workers[seat.name].distribution.assignment.unowned
        }
        return list(found)

    def visible(self, name: str) -> Sequence[Entry]:
        """All GPUs of a worker's machine that this run may use, in its order."""
        found = self._workers.get(name)
        return () if found is None else found.distribution.visible.entries

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        """Tell a worker what it owns; its pid is for the controller's own use of the node."""
        worker = self._workers.get(node.gateway.id)
        node.workerinput["fkit_pid"] = 0 if worker is None else worker.pid
        if worker is not None and worker.owned.ids:
            node.workerinput[GPUS_TOLD] = worker.owned.to_wire()
        seat = self._seat(node.gateway.spec)
        node.workerinput["fkit_cpu"] = seat.cpu
        node.workerinput[MACHINE_TOLD] = seat.machine
        node.workerinput[SEVERAL] = len({each.machine for each in self._seats.values()}) > 1
        if self._elsewhere is not None and self._elsewhere.serves(node.gateway.spec):
            node.workerinput[CLOCK_AHEAD] = self._elsewhere.reached(node.gateway.spec).ahead
            xdist_controller.as_remote(node)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        """From now on a machine that is lost is not the end of the run."""
        self._runs = True

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, report: pytest.TestReport) -> None:
        name = report.node.gateway.id
        worker = self._workers.get(name)
        if worker is not None and worker.owned.ids:
            report.sections.append(worker.owned.section(name, 0))

    def pytest_unconfigure(self) -> None:
        if self._elsewhere is not None:
            self._elsewhere.openings.close()
        for block in self._blocks.values():
            block.release()


def _call(gateway: Gateway, limit: float, *command: object) -> Mapping[str, Any]:
    """Have a function of :mod:`.handshake` called in the gateway."""
    channel = gateway.remote_exec(handshake)
    channel.send(command)
    answer: Mapping[str, Any] = channel.receive(limit)
    # Until its end nothing else can be executed there.
    channel.waitclose(_ANSWER)
    return answer
