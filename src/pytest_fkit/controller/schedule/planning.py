"""From what workers collected to the units of the schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Collection, Mapping, Sequence

import pytest

from ...named_tuple import NamedTuple
from ...own import own_builtins
from ...protocol.border import Facts
from ...protocol.needs import Needs
from .collected import Collected, CollectedTests
from .machines import machine_of_gpu, physical, physical_name, told_gpus
from .units import (
    ANY,
    Kind,
    Test,
    Unit,
    connected_units,
    merged_groups,
    one_unit,
    soft_units,
    strict_units,
)

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

own_builtins(globals())

OVERHEAD = {"function": 0.006, "class": 0.002, "module": 0.001, "session": 0.0005}
"""Seconds that a test takes beyond its phases, by isolation scope; see benchmarks/compare."""

_ORDERING = (
    "pytest_order", "pytest_ordering", "pytest_randomly", "pytest_reverse", "random_order",
    "randomly", "reverse", "pytest_order.plugin", "random_order.plugin",
)  # fmt: skip
"""Plugins after which the order of collection is what the user asked for.

By the names of their entry points, and of their modules, which ``-p`` gives.
"""


def is_ordered(config: pytest.Config) -> bool:
    """Whether a plugin orders tests, so that their order is kept."""
    return any(map(config.pluginmanager.hasplugin, _ORDERING))


class Plan(NamedTuple):
    """What is known of tests, by number.

    :param groups: of tests that have something in common, "" for none.
    :param connected: for tests that one worker has to run with others, the first of these.
    """

    groups: list[str]
    kinds: list[Kind]
    connected: dict[int, int]


def plan(
    mode: str,
    tests: CollectedTests,
    collected: Mapping[WorkerController, Collected | None],
    facts: Mapping[WorkerController, Facts],
    unowned: Collection[str],
) -> Plan:
    """Combine what workers say of tests.

    :param collected: by worker, None as long as it has not.
    """
    nodeids = tests.nodeids
    found = Plan([""] * len(nodeids), [ANY] * len(nodeids), {})
    # Those who own no GPUs know less than the others.
    for node, its in sorted(collected.items(), key=lambda each: not physical(each[0])):
        said = facts.get(node)
        if said is None or its is None:
            continue
        for position, group in enumerate(said.groups):
            found.groups[its.number(position)] = group
        for position, first in said.connected.items():
            found.connected[its.number(position)] = its.number(first)
        for position, each in said.needs.items():
            needs = Needs(*each)
            kind = _on_large_gpus(_kind(node, needs), needs.gpu_memory, collected, unowned)
            found.kinds[its.number(position)] = kind
        if its.positions is None and not tests.lacking(its):
            break  # nobody knows more
    if mode in ("load", "worksteal"):
        return found
    return found._replace(groups=[_scope(nodeid, mode) for nodeid in nodeids])


def _kind(node: WorkerController, needs: Needs) -> Kind:
    """What a test needs; if no machine of the run has it, the worker refuses to run the test."""
    owned = told_gpus(node)
    most = max(owned.get("most", 0), len(owned.get("ids", ())))
    gpus = None if needs.gpus is not None and needs.gpus > most else needs.gpus
    if owned.get("slots", 1) < 2:
        return Kind(gpus, needs.serial)
    return Kind(gpus, needs.serial, memory=needs.gpu_memory, share=not needs.gpu_memory)


def _on_large_gpus(
    kind: Kind, memory: int, nodes: Collection[WorkerController], unowned: Collection[str]
) -> Kind:
    """The kind, kept off GPUs with less memory; if no others are there, the worker refuses it."""
    if not memory:
        return kind
    small = {
        physical_name(node, gpu)
        for node in nodes
        for gpu, size in told_gpus(node).get("memory", {}).items()
        if size < memory
    }
    whole = [set(physical(node)) for node in nodes if small.isdisjoint(physical(node))]
    if kind.gpus is None:
        able = any(whole)
    else:
        by_machine: dict[str, set[str]] = {}
        for gpu in set(unowned).difference(small).union(*whole):
            by_machine.setdefault(machine_of_gpu(gpu), set()).add(gpu)
        able = any(max(kind.gpus, 1) <= len(gpus) for gpus in by_machine.values())
    return kind._replace(avoid=frozenset(small)) if able else kind


def _scope(nodeid: str, mode: str) -> str:
    """The group that xdist's schedulers put a test into."""
    if mode == "loadfile":
        return nodeid.split("::", 1)[0]
    if mode == "loadgroup":
        grouped = nodeid.rfind("@") > nodeid.rfind("]")
        return nodeid.rsplit("@", 1)[-1] if grouped else nodeid
    return nodeid.rsplit("::", 1)[0]


def units_of(
    config: pytest.Config, planned: Plan, seconds: Sequence[float | None], workers: int
) -> list[Unit]:
    """The units, by the mode of ``--dist``.

    :param seconds: the expected duration of each test, None where unknown.
    :param workers: how many the run begins with.
    """
    groups, kinds, connected = planned
    tests = [Test(*each) for each in zip(range(len(kinds)), groups, seconds, kinds)]
    ordered = is_ordered(config)
    if config.getoption("dist") in ("load", "worksteal"):
        if workers < 2:
            return one_unit(tests)
        rest = [test for test in tests if test.number not in connected]
        together = connected_units(tests, connected)
        return [*together, *(one_unit(rest) if ordered else soft_units(rest, sort=True))]
    known = [took for took in seconds if took is not None]
    mean = sum(known) / len(known) if known else 1.0

    def expected(number: int) -> float:
        took = seconds[number]
        return mean if took is None else took

    sort = not ordered and workers > 1 and config.getoption("loadscopereorder", True)
    return strict_units(merged_groups(tests, connected), expected, sort)
