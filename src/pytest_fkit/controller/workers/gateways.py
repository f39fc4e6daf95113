"""New gateways get their GPUs before pytest starts in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

import execnet
import pytest

from ...config import first_environment as inherited
from ...config.settings import GpuSettings
from ...gpu.devices import Fleet, from_wire
from ...gpu.slices import handshake as arrival
from ...gpu.slices import ports
from ...gpu.slices.distribution import Distribution, Place, distribute, ownership
from ...gpu.slices.environment import (
    Environment,
    gang_variables,
    names_read,
    owned_gpus,
    wants_port,
)
from ...gpu.slices.ownership import Owned
from ...gpu.vendors.vendor import Entry
from ...own import own_builtins
from ..schedule.machines import HOST, Seat, proxies, seats_of
from .gpus import Gpus
from .stated_gpus import answered
from .workers import count_text

own_builtins(globals())

_ANSWER = 60.0
"""Seconds for what a gateway is asked and told, detection not counted."""


@dataclass
class _Host:
    """A machine with workers.

    :param fleet: None as long as nobody has looked.
    """

    settings: GpuSettings
    fleet: Fleet | None = None


class Gateways:
    """Plugin of the controller.

    :param show: writes a line to the terminal.
    """

    def __init__(self, config: pytest.Config, gpus: Gpus, show: Callable[[str], None]) -> None:
        self._config = config
        self._settings = gpus.settings
        self._show = show
        self._hosts = {"": _Host(gpus.settings, gpus.fleet or Fleet())}
        # By the object: execnet compares specifications by their text. A worker that replaces
        # another has the same object.
        self._seats: dict[int, Seat] = {}
        self._specs: list[Any] = []
        self._introduced: set[object] = set()
        self._blocks: dict[int, ports.Block] = {}
        self._owned: dict[str, Owned] = {}
        self._environments: dict[str, Environment] = {}
        self._distributions: dict[str, Distribution] = {}
        self._pids: dict[str, int] = {}

    # --- seats ---

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self, specs: list[Any]) -> None:
        """Learn where there will be workers."""
        self._take_specs(specs)

    def _take_specs(self, specs: list[Any]) -> None:
        self._specs = [*self._specs, *specs]
        found = seats_of(self._specs, proxies(self._config))
        self._seats = {id(spec): seat for spec, seat in zip(self._specs, found)}

    def _seat(self, spec: Any) -> Seat:
        if id(spec) not in self._seats:  # another plugin starts it
            self._take_specs([spec])
        return self._seats[id(spec)]

    def _host(self, address: str) -> _Host:
        if address not in self._hosts:
            fleet, settings = answered(self._config, self._settings, address)
            self._hosts[address] = _Host(settings, fleet)
        return self._hosts[address]

    # --- gateways ---

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_newgateway(self, gateway: Any) -> None:
        """Set the variables of the worker that is to start in it.

        :raises pytest.UsageError: if there is none of the GPUs that the user named.
        """
        seat = self._seat(gateway.spec)
        try:
            self._owned[gateway.id] = self._receive(gateway, seat, self._host(seat.host))
        except (execnet.RemoteError, execnet.TimeoutError, EOFError, OSError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            pytest.exit(
                f"pytest-fkit: {gateway.id} can't be given its environment: {reason}",
                pytest.ExitCode.INTERRUPTED,
            )

    def _receive(self, gateway: Any, seat: Seat, host: _Host) -> Owned:
        answer = _ask(gateway, host)
        self._pids[gateway.id] = answer["pid"]
        if host.fleet is None:
            host.fleet = _fleet(answer)
        environ = answer["environ"]
        if gateway.spec.popen and not gateway.spec.via:
            # It was started with what conftest files had left.
            environ = {**inherited.environment(), **environ}
        place, distribution = self._place(seat, host, environ)
        self._distributions[gateway.id] = distribution
        port = 0
        if place.slice or wants_port(host.settings.env):
            port = self._port(gateway, seat)
        environment = self._environments[gateway.id] = Environment(
            place,
            environ,
            host.settings.amd_mask,
            port,
            max(1, answer["cores"] // len(self._on_host(seat))),
            host.settings.env,
            distribution.visible.most,
        )
        _call(gateway, _ANSWER, "set", environment.variables())
        if seat.host and seat.group not in self._introduced:
            self._introduced.add(seat.group)
            self._introduce(seat, host, distribution)
        return owned_gpus(environment, visible=distribution.visible.entries)

    def gang_variables(self, name: str, gpus: Sequence[Entry]) -> dict[str, str]:
        """What has to be set in a process of a worker so that it sees these GPUs, not its own.

        :param name: of the worker, as in "gw0".
        :param gpus: of its machine, picked from the same list as its own.
        :raises ValueError: see :func:`pytest_fkit.gpu.slices.environment.gang_variables`.
        """
        return gang_variables(self._environments[name], gpus)

    def variables(self, name: str, gpus: Sequence[str]) -> dict[str, str]:
        """What shows a worker these GPUs, in place of its own.

        :param name: of the worker, as in "gw0".
        :param gpus: of its machine, as in "host/id".
        """
        entries = {entry.id: entry for entry in self._distributions[name].visible.entries}
        wanted = [entries[gpu.rpartition("/")[2]] for gpu in gpus]
        return self.gang_variables(name, wanted)

    def unowned(self) -> list[str]:
        """The GPUs of this machine that belong to no worker, as in "host/id"."""
        local = (each for each in self._seats.values() if not each.host and not each.cpu)
        found = {
            f"/{entry.id}": None
            for seat in local
            if seat.name in self._distributions
            for entry in self._distributions[seat.name].assignment.unowned
        }
        return list(found)

    def visible(self, name: str) -> Sequence[Entry]:
        """All GPUs of a worker's machine that this run may use, in its order."""
        found = self._distributions.get(name)
        return () if found is None else found.visible.entries

    def _on_host(self, seat: Seat) -> list[Seat]:
        return [each for each in self._seats.values() if each.host == seat.host]

    def _place(
        self, seat: Seat, host: _Host, environ: Mapping[str, str]
    ) -> tuple[Place, Distribution]:
        numbers = [each.number for each in self._group(seat)]
        distribution = distribute(host.fleet or Fleet(), host.settings, environ, numbers)
        if seat.cpu:
            seen = distribution.visible
            return Place(seat.number, seen.vendor, hidden=bool(seen.entries)), distribution
        return distribution.assignment.places[numbers.index(seat.number)], distribution

    def _group(self, seat: Seat) -> list[Seat]:
        seats = self._seats.values()
        return [each for each in seats if each.group == seat.group and not each.cpu]

    def _port(self, gateway: Any, seat: Seat) -> int:
        if seat.host:
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

    def _introduce(self, seat: Seat, host: _Host, distribution: Distribution) -> None:
        """Say about a remote machine what the header says about this one."""
        fleet = host.fleet or Fleet()
        verbose = self._config.getoption("verbose", 0) >= 2
        for line in (*(fleet.trail if verbose else fleet.notices), *distribution.notices):
            self._show(f"fkit: {seat.host}: {line}")
        if distribution.visible.entries:
            names = [each.name for each in self._group(seat)]
            text = ownership(distribution.visible, distribution.assignment, names)
            self._show(f"fkit: {seat.host}: {count_text(len(names))}, {text}")

    # --- what workers, and reports on dead ones, are told ---

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker what it owns, and those who ask the node its pid."""
        node.workerinput["fkit_pid"] = self._pids.get(node.gateway.id, 0)
        owned = self._owned.get(node.gateway.id)
        if owned is not None and owned.ids:
            node.workerinput["fkit_gpus"] = owned.to_wire()
        seat = self._seat(node.gateway.spec)
        node.workerinput["fkit_cpu"] = seat.cpu
        node.workerinput[HOST] = seat.host

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, report: Any) -> None:
        """Name the GPUs of a worker that died."""
        name = report.node.gateway.id
        owned = self._owned.get(name)
        if owned is not None and owned.ids:
            report.sections.append(owned.section(name, 1))

    def pytest_unconfigure(self) -> None:
        """Let others have the ports."""
        for block in self._blocks.values():
            block.release()


def _ask(gateway: Any, host: _Host) -> Mapping[str, Any]:
    limit = host.settings.gpus_timeout if host.fleet is None else 0.0
    names = names_read(host.settings.env)
    answer: Mapping[str, Any] = _call(gateway, _ANSWER + limit, "answer", names, limit)
    return answer


def _call(gateway: Any, limit: float, *command: object) -> Any:
    """Have a function of :mod:`arrival` called in the gateway."""
    channel = gateway.remote_exec(arrival)
    channel.send(command)
    answer = channel.receive(limit)
    # Until its end nothing else can be executed there.
    channel.waitclose(_ANSWER)
    return answer


def _fleet(answer: Mapping[str, Any]) -> Fleet:
    if answer["fleet"] is not None:
        return from_wire(json.loads(answer["fleet"]))
    problem = f"GPUs can't be looked for: {answer['problem']}"
    return Fleet(trail=(problem,), notices=(problem,))
