"""On which machine a worker runs, as far as xdist's options tell."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Sequence

import execnet
import pytest

from ...gpu.vendors.detection import MASKS
from ...own import own_builtins

own_builtins(globals())

CPU_WORKER = "FKIT_CPU_WORKER"
"""The variable that says of a worker that it has no GPUs, where others have."""

HOST = "fkit_host"
"""Of ``workerinput``: see :func:`host_of`."""


@dataclass(frozen=True)
class Seat:
    """Where a worker is, or is going to be, and the worker that replaces it.

    :param number: of the worker, from 0 on, in the order of ``--tx``.
    :param name: of the first worker there, as in "gw0".
    :param host: "" for the machine of the controller, else its address.
    :param environ: mask variables that ``--tx`` sets for this worker.
    :param cpu: whether it gets no GPUs.
    """

    number: int
    name: str
    host: str = ""
    environ: tuple[tuple[str, str], ...] = ()
    cpu: bool = False

    @property
    def group(self) -> tuple[object, ...]:
        """The same for all workers among which the same GPUs are distributed."""
        return self.host, self.environ


def host_of(node: Any) -> str:
    """The machine on which a worker of xdist's runs, as :class:`Seat` has it."""
    return str(node.workerinput.get(HOST, ""))


def proxies(config: pytest.Config) -> list[str]:
    """The options ``--px``; pytest-xdist has them from 3.7 on."""
    return config.getoption("px", None) or []


def seats(tx: Sequence[str], px: Sequence[str]) -> list[Seat]:
    """Where the workers of ``--tx`` are going to be.

    :param px: the options ``--px``.
    """
    return seats_of([execnet.XSpec(text) for text in _expanded(tx)], px)


def seats_of(specs: Sequence[Any], px: Sequence[str]) -> list[Seat]:
    """The same for execnet's specifications."""
    proxies = {spec.id: spec for spec in (*map(execnet.XSpec, px), *specs) if spec.id}
    names = (f"gw{number}" for number in range(len(specs)))
    return [
        Seat(
            number, spec.id or next(names), _host(spec, proxies), _masks(spec),
            bool(spec.env.get(CPU_WORKER)),
        )
        for number, spec in enumerate(specs)
    ]  # fmt: skip


def cpu_workers(number: int) -> list[str]:
    """The options ``--tx`` of workers on this machine that get no GPUs."""
    return [f"popen//env:{CPU_WORKER}=1"] * number


def _expanded(tx: Sequence[str]) -> Iterator[str]:
    """Without the ``N*`` that xdist understands."""
    for text in tx:
        number, star, spec = text.partition("*")
        if star and number.isdigit():
            yield from [spec] * int(number)
        else:
            yield text


def _host(spec: Any, proxies: Mapping[str, Any], depth: int = 0) -> str:
    via = spec.via or spec.installvia
    if via in proxies and depth < len(proxies):
        return _host(proxies[via], proxies, depth + 1)
    if spec.ssh or spec.vagrant_ssh:
        # As on ssh's command line: options, then the address.
        return str(spec.ssh or spec.vagrant_ssh).split()[-1].rpartition("@")[2]
    if spec.socket:
        return str(spec.socket).rpartition(":")[0]
    return ""


def _masks(spec: Any) -> tuple[tuple[str, str], ...]:
    """The masks in ``env:NAME=VALUE``, and in ``python=env NAME=VALUE ... python``."""
    given = [*spec.env.items()]
    words = shlex.split(spec.python or "")
    if words and words[0].rpartition("/")[2] == "env":
        given += [(name, text) for name, sign, text in (w.partition("=") for w in words) if sign]
    return tuple(sorted((name, text) for name, text in dict(given).items() if name in MASKS))
