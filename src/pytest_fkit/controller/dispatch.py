"""Stands in the place of xdist's schedulers, and has workers do what the schedule decides."""

from __future__ import annotations

import marshal
from dataclasses import dataclass
from typing import Any, Callable, Sequence

import pytest

from .. import private_api
from ..settings import Settings
from .collected import Collected, Union
from .durations import Durations
from .schedule import Decision, Recall, Schedule, Send, Settle
from .units import ANY, Test, one_unit, soft_units, strict_units

MODES = ("load", "worksteal", "loadscope", "loadfile", "loadgroup")
"""Of ``--dist``, that are served here."""

_ORDERING = {
    "pytest-order", "pytest-ordering", "pytest-random-order", "pytest-randomly", "pytest-reverse",
}  # fmt: skip
"""Distributions of plugins after which the order of collection is what the user asked for."""

_OVERHEAD = {"function": 0.006, "class": 0.002, "module": 0.001, "session": 0.0005}
"""Seconds that a test takes beyond its phases, by isolation scope; see benchmarks/per_test.py."""


def dispatches(config: pytest.Config) -> bool:
    """Whether this scheduler serves the run: not where a plugin or conftest.py brings its own."""
    return config.getoption("dist") in MODES and not private_api.other_schedulers(config)


@dataclass
class _Node:
    """A worker.

    :param collected: None as long as it has not.
    """

    name: str
    collected: Collected | None = None


class Dispatch:
    """See xdist's ``Scheduling``; node ids are the key to what DSession says, numbers to the rest.

    :param numnodes: how many workers the run begins with.
    :param order: sends a worker a message.
    :param facts: what a worker said of what it collected, see worker/facts.py, None if nothing.
    :param ended: called with a worker that is through with a test.
    """

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        numnodes: int,
        order: Callable[[Any, tuple[Any, ...]], None],
        facts: Callable[[Any], bytes | None],
        ended: Callable[[Any], None],
    ) -> None:
        self.config = config
        self.numnodes = numnodes
        self._order = order
        self._facts = facts
        self._ended = ended
        self._settings = settings
        self._durations = Durations(config)
        self._nodes: dict[Any, _Node] = {}
        self._ids: dict[Any, Sequence[str]] = {}
        self._by_name: dict[str, Any] = {}
        self._tests = Union()
        self._schedule: Schedule | None = None
        self._refused = False
        self._died: set[str] = set()
        self.unrunnable: dict[str, str] = {}
        """Why nobody could run a test, by node id."""

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
        return self._refused or (self._schedule is not None and not self._schedule.unfinished)

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
        self._ended(node)
        self._schedule.completed(node.gateway.id, number, duration)

    def mark_test_pending(self, item: str) -> None:
        """Run a test again that died with its worker; pytest-rerunfailures asks for that."""
        assert self._schedule is not None
        self._durations.forget(item)
        self._schedule.requeue(self._tests.nodeids.index(item), ANY)

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
        if self._schedule is None or known.collected is None:
            return None
        number = self._schedule.remove_worker(known.name)
        if number is None:
            return None
        nodeid = self._tests.nodeids[number]
        self._durations.forget(nodeid)
        return nodeid

    # --- what workers say ---

    def begins(self, node: Any, position: int) -> None:
        """A worker begins a test."""
        number = self._number(node, position)
        if number is not None:
            assert self._schedule is not None
            self._schedule.begins(node.gateway.id, number)

    def waits(self, node: Any) -> None:
        """A worker has nothing to run."""
        if self._schedule is not None and node.gateway.id in self._by_name:
            self._schedule.waits(node.gateway.id)

    def returned(self, node: Any, positions: Sequence[int]) -> None:
        """A worker gives tests back."""
        known = self._nodes.get(node)
        if self._schedule is not None and known is not None and known.collected is not None:
            numbers = [known.collected.number(each) for each in positions]
            self._schedule.returned(known.name, numbers)

    def died(self, node: Any, nodeid: str) -> None:
        """The process of a test died: how long that took says nothing."""
        del node
        self._died.add(nodeid)
        self._durations.forget(nodeid)

    def close(self) -> None:
        """The run is over."""
        self._durations.keep()

    # --- what is to be done ---

    def act(self) -> None:
        """Have done what is to be done now."""
        if self._schedule is None:
            return
        collecting = private_api.active_nodes(self.config) - set(self._ids)
        self._schedule.expect(len(collecting))
        for decision in self._schedule.decide():
            self._do(decision)

    def _do(self, decision: Decision) -> None:
        if isinstance(decision, Send):
            self._order_tests("run", decision.worker, decision.tests)
        elif isinstance(decision, Recall):
            self._order_tests("recall", decision.worker, decision.tests, decision.whole)
        elif isinstance(decision, Settle):
            self._order(self._by_name[decision.worker], ("settle",))
        else:
            self.unrunnable[self._tests.nodeids[decision.test]] = "no worker is left that could"

    def _order_tests(self, order: str, name: str, tests: Sequence[int], *more: Any) -> None:
        node = self._by_name[name]
        collected = self._nodes[node].collected
        assert collected is not None
        self._order(node, (order, [collected.position(each) for each in tests], *more))

    def _number(self, node: Any, position: int) -> int | None:
        """The number of a test of a worker, None if that is not served any more."""
        known = self._nodes.get(node)
        if known is None or known.collected is None:
            return None
        return known.collected.number(position)

    # --- the beginning ---

    def _begin(self) -> bool:
        if not private_api.same_collections(self.config, self._ids):
            return False
        for node, ids in self._ids.items():
            self._nodes[node].collected = self._tests.add(ids)
        nodeids = self._tests.nodeids
        seconds = self._durations.expected(nodeids)
        self._schedule = Schedule(seconds, _OVERHEAD[self._settings.isolation])
        groups = self._groups()
        tests = [Test(*each) for each in zip(range(len(nodeids)), groups, seconds)]
        self._schedule.add_units(self._units(tests, seconds))
        for node in self._ids:
            self._add(node)
        return True

    def _units(self, tests: Sequence[Test], seconds: Sequence[float | None]) -> list[Any]:
        mode = self.config.getoption("dist")
        ordered = bool(_ORDERING & _plugins(self.config))
        if mode in ("load", "worksteal"):
            if ordered or self.numnodes < 2:
                return one_unit(tests)
            return soft_units(tests, sort=True)
        sort = not ordered and self.numnodes > 1 and self.config.getoption("loadscopereorder", True)
        known = [took for took in seconds if took is not None]
        mean = sum(known) / len(known) if known else 1.0
        return strict_units(tests, lambda number: _or(seconds[number], mean), sort)

    def _groups(self) -> Sequence[str]:
        mode = self.config.getoption("dist")
        if mode not in ("load", "worksteal"):
            return [_scope(nodeid, mode) for nodeid in self._tests.nodeids]
        groups = [""] * len(self._tests.nodeids)
        for node, known in self._nodes.items():
            facts = self._facts(node)
            if facts is None or known.collected is None:
                continue
            for position, group in enumerate(marshal.loads(facts)):  # noqa: S302 (ours)
                groups[known.collected.number(position)] = group
            if known.collected.positions is None and len(self._ids[node]) == len(groups):
                break  # nobody knows more
        return groups

    def _join(self, node: Any) -> None:
        self._nodes[node].collected = self._tests.add(self._ids[node])
        self._add(node)

    def _add(self, node: Any) -> None:
        assert self._schedule is not None
        collected = self._nodes[node].collected
        assert collected is not None
        self._schedule.add_worker(node.gateway.id, lacks=self._tests.lacking(collected))


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
