"""The orders to the keeper: which test runs in which process, with which limits."""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from typing import Callable, Mapping, Sequence

import pytest

from ...compat.pytest_nodes import lineage, unique_id
from ...config.folders import claim_artifacts, wrapper_refusal
from ...config.marks import Limits, limits, spawned_key
from ...config.settings import Settings, read
from ...gpu.slices.launchers import rank_of
from ...gpu.slices.ownership import OWNED
from ...own import os, own_builtins
from ...protocol.border import Facts
from ...protocol.endings import count, format_size
from ...protocol.messages import Run
from ...protocol.needs import Needs
from ...protocol.plain_values import carriable
from ...protocol.process_keys import APART, OWN, SESSION, ProcessKey
from ...protocol.repetitions import item_at, test_of
from ...system.paths import remove_tree
from ..needs_of_tests import needs_of, needs_of_all
from ..reports.rerunfailures import Reruns
from .batches import MOST_IN_ORDER, Refusal
from .connected import Connection, Connections, connections, group_of
from .repeats import Repeats
from .sources import Taken

own_builtins(globals())


class Requests:
    """Makes orders from options, marks and what keeps tests from being forked.

    :param unforkable: says what keeps a test from being forked, or "".
    """

    def __init__(
        self,
        session: pytest.Session,
        settings: Settings,
        unforkable: Callable[[pytest.Item], str],
        reruns: Reruns,
    ) -> None:
        self._session = session
        self._settings = settings
        self.repeats = Repeats(session, settings, lambda: self._connections)
        self._unforkable = unforkable
        self._reruns = reruns
        self._fork_unsafe = ""
        self._known: dict[int, Limits | str] = {}
        self._causes: dict[tuple[int, ...], str] = {}
        self._artifacts: dict[int, str] = {}  # by position, of tests that have not begun
        self._owned = session.config.stash.get(OWNED, None)

    def of(self, taken: Taken, ordered: Sequence[Run] = ()) -> list[Run | Refusal]:
        """The orders for tests that were taken.

        :param ordered: those that the keeper has already.
        """
        positions, following = taken.positions[len(ordered) :], self._guess(taken)
        chain = [*positions, *(() if following is None else (following,))]
        wanted = [self._wanted(each) for each in chain]
        orders = (
            self._order(*each)
            for each in itertools.zip_longest(positions, wanted, chain[1:], wanted[1:])
            if each[0] is not None
        )
        return [*ordered, *orders]

    def key(self, position: int | None) -> ProcessKey:
        """The key of the process that runs the test at a position."""
        wanted = None if position is None else self._wanted(position)
        return wanted.key if isinstance(wanted, Limits) else OWN

    def _guess(self, taken: Taken) -> int | None:
        """The test that follows; where nobody knows, the one closest to the last of the tests.

        So nothing is torn down that the test which will follow may need.
        """
        if taken.certain or taken.following is not None or not taken.positions:
            return taken.following
        own = test_of(taken.positions[-1])
        if self.repeats.on and not self.repeats.why_once(own):
            return own
        for node in itertools.islice(lineage(self._session.items[own]), 1, None):
            found = next((each for each in self._below[node] if each != own), None)
            if found is not None:
                return found
        return None

    @functools.cached_property
    def _below(self) -> dict[object, list[int]]:
        """Below each collector, the positions of two of its tests."""
        found: dict[object, list[int]] = defaultdict(list)
        for position, item in enumerate(self._session.items):
            for node in itertools.islice(lineage(item), 1, None):
                if len(found[node]) < 2:
                    found[node].append(position)
        return found

    def _order(
        self, position: int, wanted: Limits | str, following: int | None, after: Limits | str | None
    ) -> Run | Refusal:
        item = item_at(self._session.items, position)
        if not isinstance(wanted, Limits):
            return Refusal(position, wanted)
        lacking = self._lacking(item, wanted)
        if lacking:
            return Refusal(position, lacking, skipped=True)
        artifacts = ""
        if wanted.key.wrapper:
            try:
                artifacts = self._claim_artifacts(position)
            except (OSError, pytest.UsageError) as error:
                return Refusal(position, f"no folder can be made for it: {error}")
        if _is_apart(wanted) or _is_apart(after):
            following = after = None  # all is torn down between the two
        return Run(
            position,
            -1 if following is None else following,
            wanted.key,
            after.key if isinstance(after, Limits) else OWN,
            wanted.timeout,
            wanted.memory_limit,
            self._session.testsfailed,
            carriable(item.location),
            suite_reruns=self._reruns.in_suite,
            gpu_memory=self._gpu_memory(item),
            artifacts=artifacts,
            seed=self.repeats.seed(position),
        )

    def _claim_artifacts(self, position: int) -> str:
        """The folder of a test whose process a wrapper runs; the same until the test begins."""
        if position not in self._artifacts:
            nodeid = item_at(self._session.items, position).nodeid
            self._artifacts[position] = claim_artifacts(self._session.config, nodeid)
        return self._artifacts[position]

    def take_artifacts(self, run: Run) -> str:
        """The folder of a test that begins; from now on it is the test's."""
        self._artifacts.pop(run.position, None)
        return run.artifacts

    def with_new_artifacts(self, run: Run) -> Run:
        """The order for another attempt, which gets a folder of its own."""
        return run._replace(artifacts=self._claim_artifacts(run.position)) if run.artifacts else run

    def drop_artifacts(self) -> None:
        """Remove the folders of tests that are not going to begin."""
        for path in self._artifacts.values():
            remove_tree(path)
        self._artifacts.clear()

    def apart(self, position: int, environ: Mapping[str, str]) -> Run | Refusal:
        """The test at this position, in a fresh interpreter that has these variables."""
        wanted = self._wanted(position)
        if isinstance(wanted, Limits):
            wanted = _apart(item_at(self._session.items, position), wanted, environ)
            wanted = wanted._replace(key=self.repeats.fresh_key(position, wanted.key))
        return self._order(position, wanted, None, None)

    def note_fork_unsafe(self, reason: str) -> None:
        """Fork no test from now on."""
        self._fork_unsafe = reason
        self._known.clear()

    def _wanted(self, position: int) -> Limits | str:
        """The limits of the test and its process, or the usage error about them."""
        if position not in self._known:
            if len(self._known) > 2 * MOST_IN_ORDER:
                self._known.clear()
            wanted = self._wanted_by(test_of(position))
            self._known[position] = self.repeats.limits(position, wanted)
        return self._known[position]

    def _wanted_by(self, position: int) -> Limits | str:
        item = self._session.items[position]
        if position in self._connections.errors:
            return self._connections.errors[position]
        try:
            wanted = self._showing(item, limits(item, self._settings))
        except pytest.UsageError as error:
            return str(error)
        connection = self._connections.of.get(position)
        if wanted.wrapper:
            return self._wrapped(item, wanted, connection)
        if wanted.key.scope == APART:
            return wanted
        environ = wanted.key.environ
        if connection is not None:
            wanted = wanted._replace(key=connection.key._replace(environ=environ))
        if not self._cause(position, wanted):
            return wanted
        key = spawned_key(item, wanted)
        if connection is not None:
            key = self._spawned_together(connection)._replace(environ=environ)
        return wanted._replace(key=key)

    def _wrapped(
        self, item: pytest.Item, wanted: Limits, connection: Connection | None
    ) -> Limits | str:
        """With a process of the test's own that its wrapper runs, or why there can't be one."""
        name = wanted.wrapper[0]
        why = wrapper_refusal(self._session.config, wanted.wrapper)
        if why:
            return f"its wrapper can't be run: {why}"
        if connection is not None:
            return (
                f"a wrapper, {name}, runs one test in a process of its own, and this one shares "
                f"its process because of {connection.cause}; "
                '@pytest.mark.fkit(wrapper="") runs it without'
            )
        key = wanted.key
        if key.scope != APART:
            key = ProcessKey("spawn", "function", unique_id(item), environ=key.environ)
        key = key._replace(wrapper=wanted.wrapper)
        return wanted._replace(key=key, isolation="function")

    @functools.cached_property
    def _connections(self) -> Connections:
        return connections(self._session, lambda item: limits(item, self._settings).key)

    @property
    def connected(self) -> dict[int, int]:
        """By position, the first of the tests that have to run on the same worker."""
        return {each: found.positions[0] for each, found in self._connections.of.items()}

    def _spawned_together(self, connection: Connection) -> ProcessKey:
        """A fresh interpreter for tests that are connected; it collects one file, or everything."""
        paths = {self._session.items[each].path for each in connection.positions}
        return (connection.key if len(paths) == 1 else SESSION)._replace(method="spawn")

    def shared(self, run: Run) -> str:
        """Why the test shares a process though nobody asked for that, or ""."""
        wanted = self._wanted(run.position)
        if not isinstance(wanted, Limits) or run.key.is_of_one:
            return ""
        position = test_of(run.position)
        cause = "" if wanted.isolation else self._cause(position, wanted)
        connection = self._connections.of.get(position)
        return connection.cause if not cause and connection is not None else cause

    def _showing(self, item: pytest.Item, wanted: Limits) -> Limits:
        """With the variables of a test that needs more or fewer GPUs than its worker owns.

        :raises pytest.UsageError: see needs_of.
        """
        gpus, owned = needs_of(item).gpus or 0, self._owned
        if owned is None:
            return wanted
        environ = owned.showing(gpus, os.environ)
        if environ and gpus > len(owned.ids):
            return _apart(item, wanted, environ)
        return wanted._replace(key=wanted.key._replace(environ=_pairs(environ)))

    def _lacking(self, item: pytest.Item, wanted: Limits) -> str:
        """Why a test is skipped that needs more or larger GPUs than this run has, or ""."""
        needs, owned = needs_of(item), self._owned
        most = 0 if owned is None else max(owned.most, len(owned.ids))
        if needs.gpus and needs.gpus > most:
            has = self._why_no_gpus() or f"this run has {most}"
            return f"needs {count(needs.gpus, 'GPU')}; {has}"
        if owned is None or not needs.gpu_memory:
            return ""
        for gpu in owned.seen(dict(wanted.key.environ)):
            memory = owned.memory.get(gpu, needs.gpu_memory)
            if memory < needs.gpu_memory:
                what = format_size(needs.gpu_memory)
                return f"needs {what} of GPU memory; GPU {gpu} has {format_size(memory)}"
        return ""

    def _why_no_gpus(self) -> str:
        """Why this run has no GPUs to give; "" if it has some."""
        if self._owned is not None:
            return ""
        if read(self._session.config, "fkit_gpus") == "none":
            return "this run has none (--fkit-gpus=none)"
        rank = rank_of(os.environ)
        return f"{rank}: they are left to the launcher" if rank else "this run has none"

    def _gpu_memory(self, item: pytest.Item) -> int:
        """Bytes that have to be free on its GPUs; 0 where nobody knows which these are."""
        owned = self._owned
        unknown = owned is None or owned.overwritten(os.environ)
        return 0 if unknown else needs_of(item).gpu_memory

    def _cause(self, position: int, wanted: Limits) -> str:
        """What keeps the test, or one with which it is to share a process, from being forked."""
        if self._fork_unsafe:
            return self._fork_unsafe
        if wanted.isolation == "session" or wanted.key.scope == "session":
            return self._cause_of_any
        connection = self._connections.of.get(position)
        items = self._session.items
        if connection is None:
            return self._unforkable(items[position])
        if connection.positions not in self._causes:
            causes = (self._unforkable(items[each]) for each in connection.positions)
            self._causes[connection.positions] = next(filter(None, causes), "")
        return self._causes[connection.positions]

    @functools.cached_property
    def _cause_of_any(self) -> str:
        return next(filter(None, map(self._unforkable, self._session.items)), "")


def _apart(item: pytest.Item, wanted: Limits, environ: Mapping[str, str]) -> Limits:
    """The limits of a test that runs alone, in a fresh interpreter with these variables."""
    key = ProcessKey("spawn", APART, unique_id(item), environ=_pairs(environ))
    return wanted._replace(key=key, isolation="function")


def _is_apart(wanted: Limits | str | None) -> bool:
    return isinstance(wanted, Limits) and wanted.key.scope == APART


def _pairs(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Variables in the form of :class:`.ProcessKey`."""
    return tuple(sorted(environ.items()))


# --- what the controller is told ------------------------------------------------------------------


def facts(
    session: pytest.Session, requests: Requests, grouped: bool, serial: Sequence[str]
) -> Facts:
    """What a worker tells the controller of the tests that it collected.

    :param grouped: whether the controller asks for the names of what tests have in common.
    :param serial: patterns of node ids of tests that never run at the same time.
    """
    groups: list[str] = []
    if grouped:
        groups = [group_of(item, requests.key(number)) for number, item in enumerate(session.items)]
    needs = {
        position: carriable(each)
        for position, each in enumerate(needs_of_all(session.items, serial))
        if each != Needs()
    }
    return Facts(tuple(groups), needs, requests.connected, requests.repeats.once)
