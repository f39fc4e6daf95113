"""Seats of workers on machines, by xdist's options, and the GPUs that a worker has there."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Iterable, Iterator, Mapping, Sequence

import execnet
import pytest

from ...gpu.devices import placed
from ...gpu.slices.ownership import GPUS_TOLD, MACHINE_TOLD, on_machine
from ...gpu.vendors.detection import MASKS
from ...named_tuple import NamedTuple
from ...own import own_builtins

if TYPE_CHECKING:
    from execnet import XSpec
    from xdist.workermanage import WorkerController

own_builtins(globals())

CPU_WORKER = "FKIT_CPU_WORKER"
"""A variable that is set for workers that get no GPUs where others get some."""

MACHINE_KEY = "fkit_machine"
"""The item of a worker's execnet specification with its machine's name in ``--fkit-machines``."""

CLOCK_AHEAD = "fkit_ahead"
"""The item of ``workerinput`` that :func:`clock_ahead` reads."""


class Seat(NamedTuple):
    """Where a worker runs, and the worker that replaces it.

    :param number: of the worker, from 0, in the order of ``--tx``.
    :param name: of the first worker there, as in "gw0".
    :param machine: "" for the machine of the controller, else its address.
    :param environ: mask variables that ``--tx`` sets for this worker.
    :param cpu: whether it gets no GPUs.
    """

    number: int
    name: str
    machine: str = ""
    environ: tuple[tuple[str, str], ...] = ()
    cpu: bool = False

    @property
    def group(self) -> tuple[object, ...]:
        """Equal for all workers among which the same GPUs are distributed."""
        return self.machine, self.environ


def proxies(config: pytest.Config) -> list[str]:
    """The options ``--px``; pytest-xdist has them from 3.7 on."""
    return config.getoption("px", None) or []


def seats(tx: Sequence[str], px: Sequence[str]) -> list[Seat]:
    return seats_of([execnet.XSpec(text) for text in _expanded(tx)], px)


def seats_of(specs: Sequence[XSpec], px: Sequence[str]) -> list[Seat]:
    """The same for execnet's specifications."""
    proxies = {spec.id: spec for spec in (*map(execnet.XSpec, px), *specs) if spec.id}
    names = (f"gw{number}" for number in range(len(specs)))
    return [
        Seat(
            number, spec.id or next(names), _machine(spec, proxies), _masks(spec),
            bool(spec.env.get(CPU_WORKER)),
        )
        for number, spec in enumerate(specs)
    ]  # fmt: skip


def seats_of_run(config: pytest.Config) -> list[Seat]:
    """Where workers are going to run; none at ``-n0``."""
    tx = config.getoption("tx", None) or []
    return [] if config.getoption("dist", "no") == "no" else seats(tx, proxies(config))


def workers_by_machine(seats: Iterable[Seat]) -> str:
    """Which machine has which workers, as in "n1 gw0,gw1 | n2 gw2,gw3"."""
    found: dict[str, list[str]] = {}
    for seat in seats:
        found.setdefault(seat.machine or "this machine", []).append(seat.name)
    return " | ".join(f"{machine} {','.join(names)}" for machine, names in found.items())


def cpu_workers(number: int) -> list[str]:
    """The options ``--tx`` of workers on this machine that get no GPUs."""
    return [f"popen//env:{CPU_WORKER}=1"] * number


def count_workers(number: int) -> str:
    return {0: "no workers", 1: "1 worker"}.get(number, f"{number} workers")


def _expanded(tx: Sequence[str]) -> Iterator[str]:
    """With xdist's ``N*SPEC`` written out."""
    for text in tx:
        number, star, spec = text.partition("*")
        if star and number.isdigit():
            yield from [spec] * int(number)
        else:
            yield text


def _machine(spec: XSpec, proxies: Mapping[str, XSpec], depth: int = 0) -> str:
    named: object = getattr(spec, MACHINE_KEY)
    if named:
        return str(named)
    via = str(spec.via or spec.installvia or "")
    if via in proxies and depth < len(proxies):
        return _machine(proxies[via], proxies, depth + 1)
    if spec.ssh or spec.vagrant_ssh:
        # As on ssh's command line: options, then the address.
        return str(spec.ssh or spec.vagrant_ssh).split()[-1].rpartition("@")[2]
    if spec.socket:
        return str(spec.socket).rpartition(":")[0]
    return ""


def _masks(spec: XSpec) -> tuple[tuple[str, str], ...]:
    """The masks in ``env:NAME=VALUE``, and in ``python=env NAME=VALUE ... python``."""
    given = [(name, str(text)) for name, text in spec.env.items()]
    words = shlex.split(spec.python or "")
    if words and words[0].rpartition("/")[2] == "env":
        given += [(name, text) for name, sign, text in (w.partition("=") for w in words) if sign]
    return tuple(sorted((name, text) for name, text in dict(given).items() if name in MASKS))


# --- what a worker of xdist's was told ---


def machine_of(node: WorkerController) -> str:
    """The machine on which a worker runs, as :class:`Seat` names it."""
    return str(node.workerinput.get(MACHINE_TOLD, ""))


def clock_ahead(node: WorkerController) -> float:
    """Seconds by which the clock of a worker's machine is ahead of ours, as far as is known."""
    return float(node.workerinput.get(CLOCK_AHEAD, 0.0))


def told_gpus(node: WorkerController) -> Mapping[str, Any]:
    """What a worker was told of its GPUs (Owned.to_wire()), empty if it has none."""
    owned: Mapping[str, Any] = node.workerinput.get(GPUS_TOLD, {})
    return owned


def gpu_ids(node: WorkerController) -> tuple[str, ...]:
    """The ids of a worker's GPUs, as they are shown."""
    return tuple(told_gpus(node).get("ids", ()))


def with_gpus(worker: str, gpus: Iterable[str], machine: str = "") -> str:
    """A worker with its machine and the ids of GPUs, as in "gw2 on n1 (GPUs 4,5)".

    :param gpus: none are not named.
    :param machine: as :func:`machine_of` has it; that of the controller is not named.
    """
    return placed(on_machine(worker, machine), tuple(gpus))


def physical(node: WorkerController) -> list[str]:
    """The GPUs of a worker, by names that no two machines share: "machine/id"."""
    return [physical_name(node, gpu) for gpu in gpu_ids(node)]


def physical_name(node: WorkerController, gpu: str) -> str:
    """The same for any GPU of the worker's machine."""
    return f"{machine_name(machine_of(node))}{gpu}"


def machine_name(machine: str) -> str:
    """A machine among the names of GPUs: "machine/"."""
    return f"{machine}/"


def machine_of_gpu(gpu: str) -> str:
    """The machine of a GPU with such a name."""
    return gpu.rpartition("/")[0]


def id_of(gpu: str) -> str:
    """The id of a GPU with such a name."""
    return gpu.rpartition("/")[2]
