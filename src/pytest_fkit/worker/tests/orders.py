"""The orders to the keeper: which test runs in which process, with which limits."""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from typing import Any, Callable, Mapping, NamedTuple

import pytest

from ...compat import pytest_fixtures
from ...compat.pytest_nodes import ancestor, lineage
from ...config.marks import Limits, limits, spawned_share
from ...config.settings import Settings
from ...gpu.slices.ownership import KEY
from ...own import os, own_builtins
from ...protocol.border import Facts
from ...protocol.endings import format_size
from ...protocol.messages import Run, RunTogether
from ...protocol.needs import Needs
from ...protocol.plain_values import carriable
from ...protocol.process_names import APART, SESSION, SPAWNED, SPAWNED_SESSION
from ..needs_of_tests import needs_of, needs_to_wire
from ..reports.rerunfailures import Reruns
from .connected import Connection, Connections, connections
from .sources import MOST, SECONDS, Taken

own_builtins(globals())


class Request(NamedTuple):
    """A test to run.

    :param run: or why it can't be run, or is skipped.
    :param skipped: whether `run` is a reason to skip it.
    :param shared: why the test shares a process though nobody asked for that, or "".
    """

    item: pytest.Item
    run: Run | str
    shared: str = ""
    skipped: bool = False

    @property
    def share(self) -> str:
        """Name of the process it shares, "" for one of its own."""
        return "" if isinstance(self.run, str) else self.run.share

    @property
    def changed(self) -> dict[str, str]:
        """The variables in which its process differs from the worker."""
        return {} if isinstance(self.run, str) else dict(self.run.environ)


class Requests:
    """Makes requests from options, marks and what keeps tests from being forked.

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
        self._unforkable = unforkable
        self._reruns = reruns
        self._fork_unsafe = ""
        self._known: dict[int, Limits | str] = {}
        self._causes: dict[tuple[int, ...], str] = {}
        self._base_share = functools.partial(_base_share, settings=settings)

    def of(self, taken: Taken) -> list[Request]:
        """The requests for tests that were taken."""
        positions, following = taken.positions, self._guess(taken)
        chain = [*positions, *(() if following is None else (following,))]
        wanted = [self._wanted(each) for each in chain]
        return [
            self._request(*each)
            for each in itertools.zip_longest(positions, wanted, chain[1:], wanted[1:])
            if each[0] is not None
        ]

    def share(self, position: int | None) -> str:
        """Name of the process that the test there shares, "" for one of its own."""
        if position is None:
            return ""
        wanted = self._wanted(position)
        return wanted.share if isinstance(wanted, Limits) else ""

    def _guess(self, taken: Taken) -> int | None:
        """The test that follows; where nobody knows, the one closest to the last of the tests.

        So nothing is torn down that the test which will follow may need.
        """
        if taken.certain or taken.following is not None or not taken.positions:
            return taken.following
        own = taken.positions[-1]
        for node in itertools.islice(lineage(self._session.items[own]), 1, None):
            others = [each for each in self._below[node] if each != own]
            if others:
                return others[0]
        return None

    @functools.cached_property
    def _below(self) -> dict[Any, list[int]]:
        """Below each collector, the positions of two of its tests."""
        found: dict[Any, list[int]] = defaultdict(list)
        for position, item in enumerate(self._session.items):
            for node in itertools.islice(lineage(item), 1, None):
                if len(found[node]) < 2:
                    found[node].append(position)
        return found

    def _request(
        self, position: int, wanted: Limits | str, following: int | None, after: Limits | str | None
    ) -> Request:
        item = self._session.items[position]
        if not isinstance(wanted, Limits):
            return Request(item, str(wanted))
        lacking = self._lacking(item, wanted)
        if lacking:
            return Request(item, lacking, skipped=True)
        shared = self._shared(position, wanted)
        if _is_apart(wanted) or _is_apart(after):
            following = after = None  # all is torn down between the two
        return Request(
            item,
            shared=shared,
            run=Run(
                position=position,
                next_position=-1 if following is None else following,
                share=wanted.share,
                next_share=after.share if isinstance(after, Limits) else "",
                timeout=wanted.timeout,
                wide_timeout=wanted.timeout,
                memory_limit=wanted.memory_limit,
                tests_failed=self._session.testsfailed,
                location=carriable(item.location),
                suite_reruns=self._reruns.in_suite,
                environ=wanted.environ,
                next_environ=after.environ if isinstance(after, Limits) else (),
                gpu_memory=self._gpu_memory(item),
            ),
        )

    def apart(self, position: int, environ: Mapping[str, str]) -> Request:
        """The test at this position, in a fresh interpreter that has these variables."""
        item = self._session.items[position]
        wanted = self._wanted(position)
        if not isinstance(wanted, Limits):
            return Request(item, wanted)
        return self._request(position, _apart(item, wanted, environ), None, None)

    def note_fork_unsafe(self, reason: str) -> None:
        """Fork no test from now on."""
        self._fork_unsafe = reason
        self._known.clear()

    def _wanted(self, position: int) -> Limits | str:
        """The limits of the test and its process, or the usage error about them."""
        if position not in self._known:
            if len(self._known) > 2 * MOST:
                self._known.clear()
            self._known[position] = self._wanted_by(position)
        return self._known[position]

    def _wanted_by(self, position: int) -> Limits | str:
        item = self._session.items[position]
        if position in self._connections.errors:
            return self._connections.errors[position]
        try:
            wanted = self._showing(item, limits(item, self._settings))
        except pytest.UsageError as error:
            return str(error)
        if wanted.share.startswith(APART):
            return wanted
        connection = self._connections.of.get(position)
        if connection is not None:
            wanted = wanted._replace(share=connection.share)
        if not self._cause(position, wanted):
            return wanted
        share = spawned_share(item, wanted)
        if connection is not None:
            share = self._spawned_together(connection)
        return wanted._replace(share=share)

    @functools.cached_property
    def _connections(self) -> Connections:
        return connections(self._session, self._base_share)

    @property
    def connected(self) -> dict[int, int]:
        """By position, the first of the tests that have to run on the same worker."""
        return {each: found.positions[0] for each, found in self._connections.of.items()}

    def _spawned_together(self, connection: Connection) -> str:
        """A fresh interpreter for tests that are connected; it collects one file, or everything."""
        paths = {self._session.items[each].path for each in connection.positions}
        alone = len(paths) == 1 and connection.share != SESSION
        return f"{SPAWNED}{connection.share}" if alone else SPAWNED_SESSION

    def _shared(self, position: int, wanted: Limits) -> str:
        """Why the test shares a process though nobody asked for that, or ""."""
        cause = "" if wanted.isolation else self._cause(position, wanted)
        connection = self._connections.of.get(position)
        if cause or connection is None or wanted.share.startswith(APART):
            return cause
        return connection.cause

    def _showing(self, item: pytest.Item, wanted: Limits) -> Limits:
        """With the variables of a test that needs more or fewer GPUs than its worker owns.

        :raises pytest.UsageError: see needs_of.
        """
        gpus = needs_of(item).gpus or 0
        owned = self._session.config.stash.get(KEY, None)
        if owned is None:
            return wanted
        environ = owned.showing(gpus, os.environ)
        if environ and gpus > len(owned.ids):
            return _apart(item, wanted, environ)
        return wanted._replace(environ=_pairs(environ))

    def _lacking(self, item: pytest.Item, wanted: Limits) -> str:
        """Why a test is skipped that needs more or larger GPUs than this run has, or ""."""
        needs = needs_of(item)
        owned = self._session.config.stash.get(KEY, None)
        most = 0 if owned is None else max(owned.most, len(owned.ids))
        if needs.gpus and needs.gpus > most:
            what = "1 GPU" if needs.gpus == 1 else f"{needs.gpus} GPUs"
            return f"needs {what}; this run has {most or 'none'}"
        if owned is None or not needs.gpu_memory:
            return ""
        for gpu in owned.seen(dict(wanted.environ)):
            memory = owned.memory.get(gpu, needs.gpu_memory)
            if memory < needs.gpu_memory:
                what = format_size(needs.gpu_memory)
                return f"needs {what} of GPU memory; GPU {gpu} has {format_size(memory)}"
        return ""

    def _gpu_memory(self, item: pytest.Item) -> int:
        """Bytes that have to be free on its GPUs; 0 where nobody knows which these are."""
        wanted = needs_of(item).gpu_memory
        owned = self._session.config.stash.get(KEY, None)
        if not wanted or owned is None or owned.overwritten(os.environ):
            return 0
        return wanted

    def _cause(self, position: int, wanted: Limits) -> str:
        """What keeps the test, or one with which it is to share a process, from being forked."""
        items = self._session.items
        if self._fork_unsafe:
            return self._fork_unsafe
        if wanted.isolation == "session" or wanted.share == SESSION:
            return self._cause_of_any
        connection = self._connections.of.get(position)
        if connection is None:
            return self._unforkable(items[position])
        if connection.positions not in self._causes:
            causes = (self._unforkable(items[each]) for each in connection.positions)
            self._causes[connection.positions] = next(filter(None, causes), "")
        return self._causes[connection.positions]

    @functools.cached_property
    def _cause_of_any(self) -> str:
        return next(filter(None, map(self._unforkable, self._session.items)), "")


def _base_share(item: pytest.Item, settings: Settings) -> str:
    return limits(item, settings).share


def _apart(item: pytest.Item, wanted: Limits, environ: Mapping[str, str]) -> Limits:
    """The limits of a test that runs alone, in a fresh interpreter with these variables."""
    share = f"{APART}{item.nodeid}"
    return wanted._replace(share=share, isolation="function", environ=_pairs(environ))


def _is_apart(wanted: Limits | str | None) -> bool:
    return isinstance(wanted, Limits) and wanted.share.startswith(APART)


def _pairs(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Variables in the form of :class:`.messages.Run`."""
    return tuple(sorted(environ.items()))


def together(requests: list[Request]) -> list[Request]:
    """The first test, and those after it that can be ordered with it, to run in the same process.

    The keeper enforces the limits of the first one for all of them.
    """
    first = requests[0].run
    assert isinstance(first, Run)
    # A fresh interpreter has its limits from the first test on, and has to start before that.
    if not first.share or first.share.startswith(SPAWNED) or _has_needs(first):
        return requests[:1]
    alike = itertools.takewhile(
        lambda each: (
            isinstance(each.run, Run)
            and (each.run.share, each.run.environ, each.run.timeout)
            == (first.share, first.environ, first.timeout)
            and not _has_needs(each.run)
        ),
        requests,
    )
    return list(alike)


def _has_needs(run: Run) -> bool:
    """Whether the keeper has to watch memory for it alone."""
    return bool(run.memory_limit or run.gpu_memory)


def order(requests: list[Request]) -> Run | RunTogether:
    """The order to run these, which :func:`together` chose."""
    runs = [each.run for each in requests if isinstance(each.run, Run)]
    return runs[0] if len(runs) == 1 else RunTogether(tuple(tuple(run) for run in runs), SECONDS)


def ahead(requests: list[Request]) -> Run | None:
    """The second of two tests, if it can be ordered ahead: each has a process of its own."""
    if len(requests) != 2:
        return None
    first, second = (each.run for each in requests)
    alone = isinstance(first, Run) and not first.share
    return second if alone and isinstance(second, Run) and not second.share else None


# --- what the controller is told ------------------------------------------------------------------


def facts(session: pytest.Session, requests: Requests, grouped: bool) -> Facts:
    """What a worker tells the controller of the tests that it collected.

    :param grouped: whether the controller asks for the names of what tests have in common.
    """
    groups: list[str] = []
    if grouped:
        groups = [_group(item, requests.share(number)) for number, item in enumerate(session.items)]
    nothing = Needs().to_wire()
    needs: dict[int, Any] = {
        position: carriable(each)
        for position, each in enumerate(needs_to_wire(session.items))
        if each != nothing
    }
    return Facts(tuple(groups), needs, requests.connected)


def _group(item: pytest.Item, share: str) -> str:
    if share.startswith(("class:", "module:", SPAWNED)):
        return share
    scopes = pytest_fixtures.narrower_scopes(item)
    if not scopes and not pytest_fixtures.has_setup_of_file(item):
        return ""
    kind: type[pytest.Collector] = pytest.Package if "package" in scopes else pytest.File
    node = ancestor(item, kind)
    return node.nodeid if node is not None else ""
