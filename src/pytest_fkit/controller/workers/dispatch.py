"""Stands in the place of xdist's schedulers, and has workers do what the schedule decides."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple, Protocol, Sequence, Union

import pytest

from ...compat import xdist_controller
from ...config.settings import Settings
from ...gpu.devices import Nearness
from ...gpu.errors.failure import GpuError
from ...gpu.vendors.vendor import Entry
from ...own import own_builtins
from ...protocol.border import (
    Facts,
    Holds,
    LendGpus,
    Order,
    Probed,
    RecallTests,
    Returned,
    RunTests,
    Told,
    Waits,
)
from ...protocol.border import Settle as TearDown
from ...protocol.needs import Needs
from ..retry.rerouting import Rerouting
from ..retry.retries import physical, physical_name
from ..schedule.collected import Collected
from ..schedule.collected import Union as Tests
from ..schedule.decisions import Decision, Lend, Recall, Retry, Send, Settle
from ..schedule.durations import Durations
from ..schedule.schedule import Schedule
from ..schedule.units import (
    ANY,
    Kind,
    Test,
    connected_units,
    merged_groups,
    one_unit,
    soft_units,
    strict_units,
)

own_builtins(globals())

MODES = ("load", "worksteal", "loadscope", "loadfile", "loadgroup")
"""Of ``--dist``, that are served here."""

_ORDERING = {
    "pytest-order", "pytest-ordering", "pytest-random-order", "pytest-randomly", "pytest-reverse",
}  # fmt: skip
"""Distributions of plugins after which the order of collection is what the user asked for."""

_OVERHEAD = {"function": 0.006, "class": 0.002, "module": 0.001, "session": 0.0005}
"""Seconds that a test takes beyond its phases, by isolation scope; see benchmarks/compare."""


def dispatches(config: pytest.Config) -> bool:
    """Whether this scheduler serves the run: not where a plugin or conftest.py brings its own."""
    return config.getoption("dist") in MODES and not xdist_controller.other_schedulers(config)


class Lending(Protocol):
    """Knows the GPUs of the run."""

    def variables(self, name: str, gpus: Sequence[str]) -> dict[str, str]:
        """What shows a worker these GPUs, which are of its machine."""

    def unowned(self) -> list[str]:
        """Those that belong to no worker, by names as in "host/id"."""

    def visible(self, name: str) -> Sequence[Entry]:
        """All GPUs of a worker's machine that this run may use, in its order."""


OfItself = Union[Waits, Returned, Probed, Holds]
"""What a worker says of itself, which the schedule is told."""


@dataclass
class _Node:
    """A worker.

    :param collected: None as long as it has not.
    """

    name: str
    collected: Collected | None = None


class Edges(NamedTuple):
    """What is done for it elsewhere.

    :param order: sends a worker a message.
    :param facts: what a worker said of what it collected, None if nothing.
    :param ended: called with a worker that is through with a test.
    :param at: the position at which a worker was that is dead, None if it is not known better than
        by what it said.
    :param lost: called with a worker that is dead, and whether the test is run again of which it
        told last.
    :param show: writes a line to the terminal.
    """

    order: Callable[[Any, Order], None]
    facts: Callable[[Any], Facts | None]
    ended: Callable[[Any], None]
    at: Callable[[Any], int | None]
    lost: Callable[[Any, bool], None]
    show: Callable[[str], None]


class Dispatch:
    """See xdist's ``Scheduling``; node ids are the key to what DSession says, numbers to the rest.

    :param numnodes: how many workers the run begins with.
    :param edges: what is done for it elsewhere.
    :param rerouting: decides on GPU errors.
    :param lending: says which variables show a worker GPUs that it is lent, and which GPUs belong
        to no worker.
    """

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        numnodes: int,
        edges: Edges,
        rerouting: Rerouting,
        lending: Lending | None,
    ) -> None:
        self.config = config
        self.numnodes = numnodes
        self._edges = edges
        self._order = edges.order
        self._rerouting = rerouting
        self._lending = lending
        self._settings = settings
        self._durations = Durations(config)
        self._nodes: dict[Any, _Node] = {}
        self._ids: dict[Any, Sequence[str]] = {}
        self._by_name: dict[str, Any] = {}
        self._tests = Tests()
        self._schedule: Schedule | None = None
        self._refused = False
        self._died: set[str] = set()
        self._early: dict[Any, list[OfItself]] = defaultdict(list)
        self._kinds: list[Kind] = []
        self._connected: dict[int, int] = {}
        self._nearness = Nearness()
        self._has_gpus = False
        self.in_doubt: set[Any] = set()
        """Workers that met GPU errors while they collected."""
        self.unrunnable: dict[str, str] = {}
        """Why nobody could run a test, by node id."""
        self.blamed: int | None = None
        """The number of the test that the last worker which died was running."""

    # --- what DSession asks ---

    @property
    def nodes(self) -> list[Any]:
        """The workers that are up."""
        return list(self._nodes)

    @property
    def collection_is_completed(self) -> bool:
        """Whether tests can be distributed."""
        return self._schedule is not None or len(self._ids) >= self.numnodes

    @property
    def tests_finished(self) -> bool:
        """Whether all tests have their verdicts."""
        if self._schedule is None:
            return self._refused or not self.numnodes
        return not self._schedule.unfinished

    @property
    def has_pending(self) -> bool:
        """Whether the distribution has begun."""
        return self._schedule is not None and self._schedule.unfinished > 0

    def add_node(self, node: Any) -> None:
        """A worker is up."""
        self._nodes[node] = _Node(node.gateway.id)
        self._by_name[node.gateway.id] = node

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        """It has collected."""
        self._ids[node] = collection
        if self._schedule is not None:
            self._join(node)
        # One that finds no GPU may have collected nothing; that is an exit status of its own.
        most = max(len(self._tests.nodeids), *map(len, self._ids.values()))
        xdist_controller.set_tests_collected(self.config, most)

    def schedule(self) -> None:
        """Begin, or go on."""
        if self._schedule is None and not self._refused:
            self._refused = not self._begin()
        self.act()

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0.0) -> None:
        """A worker is through with a test."""
        number = self._number(node, item_index)
        if number is None:
            return
        assert self._schedule is not None
        nodeid = self._tests.nodeids[number]
        if nodeid not in self._died:
            self._durations.found(nodeid, duration)
        self._edges.ended(node)
        self._rerouting.ended(node)
        self._schedule.completed(node.gateway.id, number, duration)

    def mark_test_pending(self, item: str) -> None:
        """Run a test again that died with its worker; pytest-rerunfailures asks for that."""
        assert self._schedule is not None
        self._durations.forget(item)
        number = self._tests.nodeids.index(item)
        self._schedule.requeue(number, self._kinds[number])

    def expect_fewer(self) -> None:
        """A worker will not be there that the run was to begin with."""
        self.numnodes -= 1
        if self._ids and self.collection_is_completed:
            self.schedule()

    def remove_pending_tests_from_node(self, node: Any, indices: Sequence[int]) -> None:
        """For xdist's way to steal, which nobody goes here."""
        raise NotImplementedError

    def remove_node(self, node: Any) -> str | None:
        """A worker is gone.

        :return: the test that it was running, None if there was none.
        :raises KeyError: if it never was up.
        """
        known = self._nodes.pop(node)
        self._ids.pop(node, None)
        self._by_name.pop(known.name)
        self._early.pop(node, None)
        self.blamed = None
        if self._schedule is None and hasattr(node, "workeroutput"):
            # It has ended in order, for a wrong argument, and will not be replaced.
            self.expect_fewer()
        if self._schedule is None or known.collected is None:
            return None
        at = self._edges.at(node)
        told_last = self._schedule.running(known.name)
        blamed = None if at is None else known.collected.number(at)
        number = self._schedule.remove_worker(known.name, blamed)
        self._edges.lost(node, told_last != number)
        if self._rerouting.lost(known.name, number) or number is None:
            return None
        self.blamed = number
        nodeid = self._tests.nodeids[number]
        self._durations.forget(nodeid)
        return nodeid

    # --- what workers say ---

    @property
    def blamed_test(self) -> tuple[str, int] | None:
        """The test that the last worker which died was running: its node id, and which of those
        with the same one it is.
        """
        if self.blamed is None:
            return None
        nodeid = self._tests.nodeids[self.blamed]
        return nodeid, self._tests.nodeids[: self.blamed].count(nodeid)

    def pass_on(self, node: Any, told: Sequence[Told]) -> Sequence[Told | Retry]:
        """See Listener."""
        return told if self._schedule is None else self._rerouting.pass_on(node, told)

    def retry(self, node: Any, position: int, seconds: float) -> None:
        """A test is to be tried elsewhere."""
        self._died.add(self._rerouting.retry(node, position, seconds))

    def hear(self, node: Any, said: OfItself) -> None:
        """A worker says something of itself, maybe before xdist says that it has collected."""
        known = self._nodes.get(node)
        if known is None or known.collected is None:
            self._early[node].append(said)
        elif isinstance(said, Waits):
            self._waits(known)
        elif isinstance(said, Returned):
            self._returned(known, known.collected, said.positions)
        elif isinstance(said, Probed):
            self._rerouting.probed(node, said.state, said.reason)
        else:
            error = None if said.error is None else GpuError.from_wire(said.error)
            self._rerouting.holds(node, said.hold, said.position, error)

    def begins(self, node: Any, position: int) -> None:
        """A worker begins a test."""
        number = self._number(node, position)
        if number is not None:
            assert self._schedule is not None
            self._schedule.begins(node.gateway.id, number)

    def _waits(self, known: _Node) -> None:
        assert self._schedule is not None
        self._schedule.waits(known.name)

    def _returned(self, known: _Node, collected: Collected, positions: Sequence[int]) -> None:
        assert self._schedule is not None
        self._schedule.returned(known.name, [collected.number(each) for each in positions])

    def died(self, node: Any, nodeid: str) -> None:
        """The process of a test died: how long that took says nothing."""
        del node
        self._died.add(nodeid)
        self._durations.forget(nodeid)

    def close(self) -> None:
        """The run is over."""
        if self._schedule is not None:
            self._rerouting.close()
        self._durations.keep()

    # --- what is to be done ---

    def act(self) -> None:
        """Have done what is to be done now."""
        if self._schedule is None:
            return
        collecting = xdist_controller.active_nodes(self.config) - set(self._ids)
        self._schedule.expect(len(collecting))
        if not collecting and self._schedule.unfinished:
            self._rerouting.bring_back()
        going_on = self._rerouting.answer()
        for decision in self._schedule.decide():
            self._do(decision)
        for node, order in going_on:  # not before it is asked for what it is not to begin
            self._order(node, order)

    def _do(self, decision: Decision) -> None:
        if isinstance(decision, Send):
            self._rerouting.sent(decision.worker, decision.tests)
            positions = self._positions(decision.worker, decision.tests)
            self._order(self._by_name[decision.worker], RunTests(positions))
        elif isinstance(decision, Recall):
            positions = self._positions(decision.worker, decision.tests)
            self._order(self._by_name[decision.worker], RecallTests(positions, decision.whole))
        elif isinstance(decision, Settle):
            self._order(self._by_name[decision.worker], TearDown())
        elif isinstance(decision, Lend):
            self._rerouting.sent(decision.worker, [decision.test])
            self._lend(decision)
        elif not self._rerouting.unrunnable(decision.test):
            self.unrunnable[self._tests.nodeids[decision.test]] = "no worker is left that could"

    def _lend(self, decision: Lend) -> None:
        node = self._by_name[decision.worker]
        positions = self._positions(decision.worker, [decision.test])
        if list(decision.gpus) == physical(node):
            self._order(node, RunTests(positions))
            return
        assert self._lending is not None
        environ = self._lending.variables(decision.worker, decision.gpus)
        self._order(node, LendGpus(positions[0], environ))

    def _positions(self, name: str, tests: Sequence[int]) -> tuple[int, ...]:
        """Where these are in a worker's collection."""
        collected = self._nodes[self._by_name[name]].collected
        assert collected is not None
        return tuple(collected.position(each) for each in tests)

    def _number(self, node: Any, position: int) -> int | None:
        """The number of a test of a worker, None if that is not served any more."""
        known = self._nodes.get(node)
        if known is None or known.collected is None:
            return None
        return known.collected.number(position)

    # --- the beginning ---

    def _begin(self) -> bool:
        if not self._are_stable():
            return False
        for node, ids in self._ids.items():
            self._nodes[node].collected = self._tests.add(ids)
        nodeids = self._tests.nodeids
        seconds = self._durations.expected(nodeids)
        self._schedule = Schedule(
            seconds,
            _OVERHEAD[self._settings.isolation],
            [] if self._lending is None else self._lending.unowned(),
            self._nearness,
            in_order=bool(_ORDERING & _plugins(self.config)),
        )
        groups = self._learn()
        numbers = range(len(nodeids))
        tests = [Test(*each) for each in zip(numbers, groups, seconds, self._kinds)]
        self._schedule.add_units(self._units(tests, seconds))
        self._rerouting.start(self._schedule, nodeids, self._kinds, self._number)
        self._has_gpus = any(map(physical, self._ids))
        for node in self._ids:
            self._add(node)
        for node in self._ids:
            self._hear_early(node)
        return True

    def _are_stable(self) -> bool:
        """Whether workers collected the same that have equal GPUs, none of them in doubt."""
        doubtful = {node for node, said in self._early.items() if _is_sick(said)} | self.in_doubt
        equal: dict[tuple[object, ...], dict[Any, Sequence[str]]] = {}
        for node, ids in self._ids.items():
            told = node.workerinput.get("fkit_gpus", {})
            key = (node,) if node in doubtful else (len(told.get("ids", ())), told.get("vendor"))
            equal.setdefault(key, {})[node] = ids
        if not all(xdist_controller.same_collections(self.config, each) for each in equal.values()):
            return False
        sizes = {node.gateway.id: len(ids) for node, ids in self._ids.items()}
        if any(ids != next(iter(self._ids.values())) for ids in self._ids.values()):
            said = ", ".join(f"{name}: {size}" for name, size in sizes.items())
            self._edges.show(
                f"fkit: workers whose GPUs differ collected different tests ({said}); "
                "each test runs where it was collected"
            )
        return True

    def _units(self, tests: Sequence[Test], seconds: Sequence[float | None]) -> list[Any]:
        mode = self.config.getoption("dist")
        ordered = bool(_ORDERING & _plugins(self.config))
        if mode in ("load", "worksteal"):
            if self.numnodes < 2:
                return one_unit(tests)
            rest = [test for test in tests if test.number not in self._connected]
            together = connected_units(tests, self._connected)
            return [*together, *(one_unit(rest) if ordered else soft_units(rest, sort=True))]
        tests = merged_groups(tests, self._connected)
        sort = not ordered and self.numnodes > 1 and self.config.getoption("loadscopereorder", True)
        known = [took for took in seconds if took is not None]
        mean = sum(known) / len(known) if known else 1.0
        return strict_units(tests, lambda number: _or(seconds[number], mean), sort)

    def _learn(self) -> Sequence[str]:
        """Take in what workers say of tests; the groups by number."""
        mode = self.config.getoption("dist")
        size = len(self._tests.nodeids)
        groups, self._kinds = [""] * size, [ANY] * size
        self._connected = {}
        # Those who own none don't know what the others have.
        nodes = sorted(self._nodes.items(), key=lambda each: not physical(each[0]))
        for node, known in nodes:
            facts = self._edges.facts(node)
            if facts is None or known.collected is None:
                continue
            for position, group in enumerate(facts.groups):
                groups[known.collected.number(position)] = group
            for position, first in facts.connected.items():
                number, with_ = known.collected.number(position), known.collected.number(first)
                self._connected[number] = with_
            for position, each in facts.needs.items():
                needs = Needs.from_wire(each)
                kind = self._on_large_gpus(_kind(node, needs), needs.gpu_memory)
                self._kinds[known.collected.number(position)] = kind
            if known.collected.positions is None and len(self._ids[node]) == size:
                break  # nobody knows more
        if mode not in ("load", "worksteal"):
            return [_scope(nodeid, mode) for nodeid in self._tests.nodeids]
        return groups

    def _on_large_gpus(self, kind: Kind, memory: int) -> Kind:
        """Of a test that needs so much memory; where nobody has that, who is to run it says so."""
        if not memory:
            return kind
        small = {
            physical_name(node, gpu)
            for node in self._nodes
            for gpu, size in node.workerinput.get("fkit_gpus", {}).get("memory", {}).items()
            if size < memory
        }
        whole = [set(physical(node)) for node in self._nodes if small.isdisjoint(physical(node))]
        unowned = set() if self._lending is None else set(self._lending.unowned())
        hosts: dict[str, set[str]] = {}
        for gpu in set().union(*whole) | (unowned - small):
            hosts.setdefault(gpu.rpartition("/")[0], set()).add(gpu)
        most = max((kind.gpus or 1) <= len(each) for each in hosts.values()) if hosts else False
        able = any(whole) if kind.gpus is None else most
        return kind._replace(avoid=frozenset(small)) if able else kind

    def _join(self, node: Any) -> None:
        self._nodes[node].collected = self._tests.add(self._ids[node])
        self._kinds += [ANY] * (len(self._tests.nodeids) - len(self._kinds))
        self._add(node)
        self._hear_early(node)

    def _hear_early(self, node: Any) -> None:
        """Take in what a worker said before the schedule knew it."""
        for said in self._early.pop(node, ()):
            self.hear(node, said)

    def _add(self, node: Any) -> None:
        assert self._schedule is not None
        collected = self._nodes[node].collected
        assert collected is not None
        if self._lending is not None:
            entries = self._lending.visible(node.gateway.id)
            self._nearness.add({physical_name(node, entry.id): entry.device for entry in entries})
        lacks = self._tests.lacking(collected)
        cpu = self._has_gpus and bool(node.workerinput.get("fkit_cpu"))
        owned = node.workerinput.get("fkit_gpus", {})
        memory = [owned.get("memory", {}).get(gpu, 0) for gpu in owned.get("ids", ())]
        self._schedule.add_worker(
            node.gateway.id, physical(node), lacks, cpu, memory, owned.get("slots", 1)
        )
        self._rerouting.add(node)


def _is_sick(said: Sequence[OfItself]) -> bool:
    return any(isinstance(each, Probed) and each.state == "sick" for each in said)


def _kind(node: Any, needs: Needs) -> Kind:
    """What a test needs; what no machine of the run has is refused by who is to run it."""
    owned = node.workerinput.get("fkit_gpus", {})
    most = max(owned.get("most", 0), len(owned.get("ids", ())))
    gpus = None if needs.gpus is not None and needs.gpus > most else needs.gpus
    if owned.get("slots", 1) < 2:
        return Kind(gpus, needs.serial)
    return Kind(gpus, needs.serial, memory=needs.gpu_memory, share=not needs.gpu_memory)


def _plugins(config: pytest.Config) -> set[str]:
    found = config.pluginmanager.list_plugin_distinfo()
    return {distribution.project_name for _, distribution in found}


def _or(seconds: float | None, other: float) -> float:
    return other if seconds is None else seconds


def _scope(nodeid: str, mode: str) -> str:
    """The group that xdist's schedulers put a test into."""
    if mode == "loadfile":
        return nodeid.split("::", 1)[0]
    if mode == "loadgroup":
        grouped = nodeid.rfind("@") > nodeid.rfind("]")
        return nodeid.rsplit("@", 1)[-1] if grouped else nodeid
    return nodeid.rsplit("::", 1)[0]
