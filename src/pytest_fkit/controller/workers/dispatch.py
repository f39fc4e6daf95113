"""Stands in for xdist's schedulers, and has workers do what the schedule decides."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Callable, Iterable, Sequence

import pytest

from ...compat import xdist_controller
from ...config.settings import SETTINGS
from ...gpu.devices import Nearness
from ...own import own_builtins
from ...protocol.border import (
    LendGpus,
    OfItself,
    Probed,
    RecallTests,
    Returned,
    RunTests,
    TearDown,
    Told,
    Waits,
)
from ...protocol.repetitions import AllOf, ByTest, test_of
from ..repeat.repeated_tests import RepeatedTests, reasons_for_once
from ..retry.rerouting import Rerouting
from ..retry.retries import Retry
from ..schedule.collected import Collected, CollectedTests
from ..schedule.known_workers import Decision, Lend, Recall, Send, SettleWorker
from ..schedule.machines import gpu_ids, physical, physical_name, seats_of_run, told_gpus
from ..schedule.planning import OVERHEAD, plan, units_of
from ..schedule.schedule import Schedule
from ..schedule.units import ANY, Kind
from .links import Links
from .liveness import Replacements
from .preparation import Durations, collected_alike

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from ..repeat.repeating import Repeating
    from .gateways import Gateways

own_builtins(globals())


class Dispatch:
    """See xdist's ``Scheduling``. DSession knows tests by node ids; here they have numbers.

    :param lost: called with a worker that is gone, and whether the test that it told of last is run
        again.
    """

    def __init__(
        self,
        config: pytest.Config,
        links: Links,
        show: Callable[[str], None],
        lost: Callable[[WorkerController, bool], None],
        replacements: Replacements,
        rerouting: Rerouting,
        lending: Gateways | None,
        repeating: Repeating | None,
    ) -> None:
        self.config = config
        self._repeating = repeating
        self._known: dict[WorkerController, Collected] = {}
        self.numnodes = len(seats_of_run(config))
        self._links = links
        self._order = links.order
        self._show = show
        self._lost = lost
        self._replacements = replacements
        self._rerouting = rerouting
        self._lending = lending
        self._durations = Durations(config)
        self._nodes: dict[WorkerController, Collected | None] = {}
        """None until the tests are numbered."""
        self._ids: dict[WorkerController, Sequence[str]] = {}
        self._by_name: dict[str, WorkerController] = {}
        self._tests = CollectedTests()
        self._schedule: Schedule | None = None
        self._refused = False
        self._died: set[str] = set()
        self._early: dict[WorkerController, list[OfItself]] = defaultdict(list)
        self._kinds: list[Kind] = []
        self._nearness = Nearness()
        self._has_gpus = False
        self.expected: dict[str, float | None] = {}
        """Seconds that each test is expected to take, None where unknown."""
        self.unrunnable: dict[str, str] = {}
        """Why nobody could run a test, by node id."""
        self.died_with_worker = False
        """Whether the last worker to die was running a test, whoever reports that."""
        self.blamed: int | None = None
        """The number of the test that the last worker to die was running."""

    # --- what DSession calls ---

    @property
    def nodes(self) -> list[WorkerController]:
        return list(self._nodes)

    @property
    def collection_is_completed(self) -> bool:
        return self._schedule is not None or len(self._ids) >= self.numnodes

    @property
    def begun(self) -> bool:
        return self._schedule is not None

    @property
    def tests_finished(self) -> bool:
        if self._schedule is None:
            return self._refused or not self.numnodes
        return not self._schedule.unfinished

    @property
    def has_pending(self) -> bool:
        return self._schedule is not None and self._schedule.unfinished > 0

    def add_node(self, node: WorkerController) -> None:
        self._nodes[node] = None
        self._by_name[node.gateway.id] = node

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        self._ids[node] = collection
        if self._schedule is not None:
            self._nodes[node] = self._known[node] = self._tests.add(collection)
            self._kinds += [ANY] * (len(self._tests.nodeids) - len(self._kinds))
            self._add(node)
            self._hear_early(node)
        # A worker that finds no GPU may have collected nothing; with DSession's number, that of the
        # last worker, this would be the exit status for no tests.
        most = max(len(self._tests.nodeids), *map(len, self._ids.values()))
        xdist_controller.set_tests_collected(self.config, most)

    def schedule(self) -> None:
        if self._schedule is None and not self._refused:
            self._refused = not self._begin()
        self.act()

    def mark_test_complete(
        self, node: WorkerController, item_index: int, duration: float = 0.0
    ) -> None:
        number = self._number(node, item_index)
        if number is None:
            return
        assert self._schedule is not None
        nodeid = self._tests.nodeids[test_of(number)]
        if nodeid not in self._died:
            self._durations.found(nodeid, duration)
        self._replacements.ended_a_test(node)
        self._rerouting.ended(node, item_index)
        self._schedule.completed(node.gateway.id, number, duration)

    def mark_test_pending(self, item: str) -> None:
        """Run a test again that died with its worker, for pytest-rerunfailures."""
        assert self._schedule is not None
        self._durations.forget(item)
        number = self._tests.nodeids.index(item)
        self._schedule.requeue(number, self._kinds[number])

    def remove_pending_tests_from_node(
        self, node: WorkerController, indices: Sequence[int]
    ) -> None:
        """Part of xdist's way to steal, which is not used here."""
        raise NotImplementedError

    def remove_node(self, node: WorkerController) -> str | None:
        """A worker is gone.

        :return: the test that it was running, None if there was none.
        :raises KeyError: if it never was up.
        """
        collected = self._nodes.pop(node)
        name = node.gateway.id
        self._ids.pop(node, None)
        self._by_name.pop(name)
        self._early.pop(node, None)
        self.blamed, self.died_with_worker = None, False
        if self._schedule is None and hasattr(node, "workeroutput"):
            # It has ended in order, because of a wrong argument, and will not be replaced.
            self.expect_fewer()
        if self._schedule is None or collected is None:
            return None
        at = self._links.at(node)
        reported_last = self._schedule.running(name)
        blamed = None if at is None else collected.number(at)
        number = self._schedule.remove_worker(name, blamed)
        self._lost(node, reported_last != number)
        if self._rerouting.lost(name, number):
            number = None
        self.died_with_worker = number is not None
        if self._repeating is not None:
            self._repeating.lost(node, None if number is None else collected.position(number))
        if self._repeating is not None or number is None:
            return None
        self.blamed = number
        self._durations.forget(self._tests.nodeids[number])
        return self._tests.nodeids[number]

    # --- what workers say ---

    def expect_fewer(self) -> None:
        """One of the workers that the run was to begin with will not be there."""
        self.numnodes -= 1
        if self._ids and self.collection_is_completed:
            self.schedule()

    @property
    def blamed_test(self) -> tuple[str, int] | None:
        """The test that the last worker to die was running.

        Its node id, and its place among the tests with that node id.
        """
        if self.blamed is None:
            return None
        nodeid = self._tests.nodeids[self.blamed]
        return nodeid, self._tests.nodeids[: self.blamed].count(nodeid)

    def decided(
        self, node: WorkerController, told: Sequence[Told]
    ) -> Iterable[Sequence[Told] | Retry]:
        """What plugins are to hear of this now, and the retries that follow from it."""
        return (
            [told] if self._schedule is None else self._rerouting.open_attempts.decided(node, told)
        )

    def retry(self, node: WorkerController, retry: Retry) -> None:
        """Another worker has to run the test again."""
        self._died.add(self._rerouting.retry(node, retry))

    def hear(self, node: WorkerController, said: OfItself) -> None:
        """A worker says something of itself, maybe before xdist says that it has collected."""
        collected = self._nodes.get(node)
        if collected is None:
            self._early[node].append(said)
            return
        assert self._schedule is not None
        name = node.gateway.id
        if isinstance(said, Waits):
            self._schedule.waits(name)
        elif isinstance(said, Returned):
            self._schedule.returned(name, [collected.number(each) for each in said.positions])
        elif isinstance(said, Probed):
            self._rerouting.probed(node, said.state, said.reason)
        else:
            self._rerouting.holds(node, said)

    def begins(self, node: WorkerController, position: int) -> None:
        number = self._number(node, position)
        if number is not None:
            assert self._schedule is not None
            self._schedule.begins(node.gateway.id, number)

    def died(self, nodeid: str) -> None:
        """The process of a test died, so that its duration says nothing."""
        self._died.add(nodeid)
        self._durations.forget(nodeid)

    def tell_held(self) -> None:
        """No other attempt is going to be made: those that are held are verdicts."""
        if self._schedule is not None:
            self._rerouting.close()
        if self._repeating is not None:
            self._repeating.conclude_all()

    def close(self) -> None:
        self.tell_held()
        self._durations.keep()

    # --- what is to be done ---

    def act(self) -> None:
        if self._schedule is None:
            return
        if not self._schedule.unfinished or xdist_controller.is_stopping(self.config):
            self._replacements.expect_none()
        collecting = xdist_controller.active_nodes(self.config) - set(self._ids)
        self._schedule.expect(len(collecting))
        if not collecting and self._schedule.unfinished:
            self._rerouting.bring_back()
        going_on = self._rerouting.answer()
        for decision in self._schedule.decide():
            self._do(decision)
        for node, order in going_on:  # not before tests are recalled that it is not to begin
            self._order(node, order)

    def _do(self, decision: Decision) -> None:
        if isinstance(decision, Send):
            positions = self._positions(decision.worker, decision.tests)
            self._order(self._by_name[decision.worker], RunTests(positions))
        elif isinstance(decision, Recall):
            positions = self._positions(decision.worker, decision.tests)
            self._order(self._by_name[decision.worker], RecallTests(positions, decision.whole))
        elif isinstance(decision, SettleWorker):
            self._order(self._by_name[decision.worker], TearDown())
        elif isinstance(decision, Lend):
            self._lend(decision)
        elif not self._rerouting.unrunnable(decision.test):
            nodeid = self._tests.nodeids[test_of(decision.test)]
            self.unrunnable[nodeid] = "no worker is left that could"

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
        collected = self._nodes[self._by_name[name]]
        assert collected is not None
        return tuple(collected.position(each) for each in tests)

    def _number(self, node: WorkerController, position: int) -> int | None:
        """The number of a test of a worker, None if that worker is gone."""
        collected = self._nodes.get(node)
        return None if collected is None else collected.number(position)

    # --- the beginning ---

    def _begin(self) -> bool:
        """Begin the distribution, unless workers collected different tests."""
        sick = (
            node
            for node, said in self._early.items()
            if any(isinstance(each, Probed) and each.state == "sick" for each in said)
        )
        doubtful = self._links.in_doubt.union(sick)
        if not collected_alike(self.config, self._ids, doubtful, self._show):
            return False
        for node, ids in self._ids.items():
            self._nodes[node] = self._known[node] = self._tests.add(ids)
        nodeids = self._tests.nodeids
        seconds = self._durations.expected(nodeids)
        self.expected = dict(zip(nodeids, seconds))
        unowned = [] if self._lending is None else self._lending.unowned()
        self._schedule = Schedule(
            seconds if self._repeating is None else ByTest(seconds),
            OVERHEAD[self.config.stash[SETTINGS].isolation],
            unowned,
            self._nearness,
        )
        mode = self.config.getoption("dist")
        planned = plan(mode, self._tests, self._nodes, self._links.facts, unowned)
        self._kinds = planned.kinds
        self._rerouting.start(self._schedule, ByTest(nodeids), ByTest(self._kinds), self._number)
        if self._repeating is None:
            self._schedule.add_units(units_of(self.config, planned, seconds, self.numnodes))
        else:
            self._repeating.start(
                RepeatedTests(self, self._schedule, planned, self._known),
                nodeids,
                reasons_for_once(self._known, self._links.facts),
            )
        self._has_gpus = any(map(physical, self._ids))
        for node in self._ids:
            self._add(node)
        for node in self._ids:
            self._hear_early(node)
        return True

    def _hear_early(self, node: WorkerController) -> None:
        for said in self._early.pop(node, ()):
            self.hear(node, said)

    def _add(self, node: WorkerController) -> None:
        collected = self._nodes[node]
        assert self._schedule is not None
        assert collected is not None
        if self._lending is not None:
            entries = self._lending.visible(node.gateway.id)
            self._nearness.add({physical_name(node, entry.id): entry.device for entry in entries})
        owned, lacking = told_gpus(node), self._tests.lacking(collected)
        self._schedule.add_worker(
            node.gateway.id,
            physical(node),
            AllOf(lacking) if lacking else lacking,
            self._has_gpus and bool(node.workerinput.get("fkit_cpu")),
            [owned.get("memory", {}).get(gpu, 0) for gpu in gpu_ids(node)],
            owned.get("slots", 1),
            0.0 if self._lending is None else self._lending.lag(node),
            physical_name(node, ""),
        )
        self._rerouting.add(node)
