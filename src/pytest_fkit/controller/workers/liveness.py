"""Workers that do not answer are killed; those that died are replaced, or given up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Protocol

import pytest

from ... import system
from ...compat import xdist_controller
from ...own import os, own_builtins, signal, threading
from ...protocol.border import GAP_WAIT, CheckAlive, Order
from ..schedule.machines import machine_of
from .gateways import Gateways, LostError

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

own_builtins(globals())


_PERIOD = GAP_WAIT / 2
"""Longest time between pings, in seconds."""

_PINGS = 4
"""How many pings at least a worker has to miss before it is killed."""

_DEATHS_IN_A_ROW = 4
"""Deaths in one place without a completed test in between, after which it is given up."""


@dataclass
class _Watched:
    """A worker.

    :param limit: seconds without an answer, 0 for none.
    :param asked: whether it is pinged; a message that comes before it listens would be lost.
    :param missed: pings since it was heard last.
    :param trouble: what was wrong with its messages at the last ping.
    """

    limit: float
    asked: bool = True
    missed: int = 0
    trouble: str = ""


class PingedLinks(Protocol):
    """What a heartbeat asks of the connections to workers, in a thread of its own."""

    show: Callable[[str], None]

    def trouble(self, node: WorkerController) -> str: ...

    def distrust(self, node: WorkerController, trouble: str) -> None: ...

    def silent(self, node: WorkerController, limit: float) -> None: ...

    def order(self, node: WorkerController, order: Order) -> None: ...


class Heartbeat:
    """Pings workers, and has those killed that do not answer.

    Pings and answers have numbers, as all messages, so that a lost one is noticed, in either
    direction.

    :param limit: seconds without an answer, 0 for none.
    """

    def __init__(self, limit: float, links: PingedLinks) -> None:
        self._limit = limit
        self._links = links
        self.period = min(_PERIOD, limit / _PINGS) if limit else _PERIOD
        """Seconds from ping to ping."""
        self.at_tick: Callable[[], None] = lambda: None
        """Called once in each period."""
        self._watched: dict[WorkerController, _Watched] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def add(self, node: WorkerController, start: float | None = None, asked: bool = True) -> None:
        """Watch a worker.

        One of this machine only when it has collected: imports may run native code for any time.

        :param start: seconds that it may be silent for beyond the limit, while it starts or
            collects; 0 for any time, None if it has collected.
        """
        limit = self._limit
        if start is not None:
            limit = limit + start if limit and start else 0.0
        with self._lock:
            self._watched[node] = _Watched(limit, asked)
        if not self._thread.is_alive() and not self._over.is_set():
            self._thread.start()

    def heard(self, node: WorkerController) -> None:
        """A worker has sent something; called in any thread."""
        with self._lock:
            if node in self._watched:
                self._watched[node].missed = 0

    def remove(self, node: WorkerController) -> None:
        with self._lock:
            self._watched.pop(node, None)

    def close(self) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(self.period):
            try:
                self.tick()
            except Exception as error:  # noqa: BLE001 (nobody would watch the others)
                self._links.show(f"fkit: a worker could not be asked for a sign of life: {error!r}")

    def tick(self) -> None:
        """Ping all workers, and kill those that have missed too many pings.

        Count missed pings, not seconds, so that workers that were suspended with this process, as
        by Ctrl-Z, are not condemned.
        """
        self.at_tick()
        with self._lock:
            watched = dict(self._watched)
        for node, state in watched.items():
            trouble = self._links.trouble(node)
            if trouble and trouble == state.trouble:
                self.remove(node)
                self._links.distrust(node, trouble)
            elif state.limit and state.missed * self.period > state.limit:
                self.remove(node)
                self._links.silent(node, state.limit)
            else:
                state.trouble = trouble
                state.missed += 1
                if state.asked:
                    self._links.order(node, CheckAlive())


def kill(node: WorkerController) -> None:
    """Kill a worker; xdist notices its death.

    Its process is killed by pid only if that is a process of this machine, below this one.
    Otherwise the connection is cut, and the worker ends because of that.
    """
    pid = node.workerinput.get("fkit_pid", 0)
    if pid and not machine_of(node) and pid in system.descendants(os.getpid()):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:  # it has died since, or runs as somebody else
            pass
        else:
            return
    # In a thread: asking a proxy to do it may take as long as the proxy does.
    thread = threading.Thread(
        target=xdist_controller.end_gateway, args=(node.gateway,), daemon=True
    )
    thread.start()


class Replacements:
    """Decides whether a worker that died is replaced.

    A death that is blamed on a test has cost that test, so those deaths come to an end by
    themselves. A worker that dies for other reasons, again and again, has to be given up.

    :param later: has the main thread call a function; called in any thread.
    """

    def __init__(
        self,
        config: pytest.Config,
        gateways: Gateways | None,
        later: Callable[[Callable[[], None]], None],
    ) -> None:
        self._config = config
        self._gateways = gateways
        self._later = later
        self._awaited: set[WorkerController] = set()
        self._deaths = 0
        self._granted = False
        self._in_a_row: Counter[int] = Counter()

    def handle(self, node: WorkerController, error: object) -> None:
        """Do what DSession.worker_errordown does, but for the limit."""
        config = self._config
        config.hook.pytest_testnodedown(node=node, error=error)
        session = xdist_controller.dist_session(config)
        try:
            blamed = session.sched.remove_node(node)
        except KeyError:
            blamed = None
        if blamed:
            xdist_controller.report_crash(config, blamed, node)
        if not session.shouldstop:
            reason = self._count(node, bool(blamed) or session.sched.died_with_worker)
            if reason:
                self._give_up(reason)
            elif not session.sched.tests_finished:
                xdist_controller.report_line(
                    config, f"\nreplacing crashed worker {node.gateway.id}"
                )
                if self._gateways is not None and self._gateways.is_elsewhere(node):
                    self._reopen(node, self._gateways)
                    return
                xdist_controller.replace_worker(config, node)
        if self._gateways is not None and self._gateways.is_elsewhere(node):
            self._gateways.clean(node)
        self._leave(node)

    def _give_up(self, reason: str) -> None:
        xdist_controller.give_up_restarts(self._config, reason)
        xdist_controller.report_line(self._config, f"\n{reason}")
        xdist_controller.dist_session(self._config).sched.expect_fewer()

    def _leave(self, node: WorkerController) -> None:
        active = xdist_controller.active_nodes(self._config)
        active.discard(node)
        if active:
            xdist_controller.dist_session(self._config).sched.act()
        else:
            xdist_controller.end_run(self._config)

    def _reopen(self, node: WorkerController, gateways: Gateways) -> None:
        """Reach its machine again, while the others go on; until then it counts as starting."""
        self._awaited.add(node)
        xdist_controller.dist_session(self._config).sched.act()
        gateways.reopen(
            node, lambda problem: self._later(lambda: self._opened(node, gateways, problem))
        )

    def _opened(self, node: WorkerController, gateways: Gateways, problem: str) -> None:
        if node not in self._awaited:
            gateways.abandon(node)
            return
        if not problem:
            try:
                xdist_controller.replace_by_opened(self._config, node.gateway.spec)
            except (LostError, OSError) as error:
                place = id(node.gateway.spec)
                self._in_a_row[place] += 1
                if self._in_a_row[place] < _DEATHS_IN_A_ROW:
                    self._reopen(node, gateways)
                    return
                problem = str(error)
        self._awaited.remove(node)
        if problem:
            name, machine = node.gateway.id, machine_of(node)
            reason = f"worker {name} is not replaced, {machine} is lost: {problem}"
            self._give_up(reason)
            active = xdist_controller.active_nodes(self._config)
            if active == {node} and not xdist_controller.dist_session(self._config).sched.begun:
                # pytest would say that there are no tests.
                raise pytest.exit.Exception(
                    f"no worker is left that could collect the tests: {reason}",
                    pytest.ExitCode.INTERRUPTED,
                )
        self._leave(node)

    def expect_none(self) -> None:
        """No tests are left for workers that are still to be started."""
        while self._awaited:
            xdist_controller.active_nodes(self._config).discard(self._awaited.pop())

    def grant(self) -> None:
        """Do not count the death that is being handled."""
        self._granted = True

    def ended_a_test(self, node: WorkerController) -> None:
        del self._in_a_row[id(node.gateway.spec)]

    def _count(self, node: WorkerController, blamed: bool) -> str:
        """Why the worker is not replaced, "" if it is."""
        granted, self._granted = self._granted, False
        if granted:
            return ""
        self._deaths += 1
        name, place = node.gateway.id, id(node.gateway.spec)
        limit = xdist_controller.restart_limit(self._config)
        if limit == 0:
            return f"worker {name} crashed and worker restarting disabled"
        if limit is not None and self._deaths > limit:
            return f"maximum crashed workers reached: {limit}"
        self._in_a_row[place] = 0 if blamed else self._in_a_row[place] + 1
        if self._in_a_row[place] >= _DEATHS_IN_A_ROW:
            return f"worker {name} is not replaced: it died {_DEATHS_IN_A_ROW} times in a row"
        return ""
