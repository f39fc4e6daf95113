"""The workers as the controller sees them: their orders, their deaths, the end of the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Generator

import pytest

from ... import system
from ...compat import xdist_controller
from ...config.settings import Settings
from ...own import mmap, os, own_builtins, threading, time
from ...protocol.border import (
    CollectionGpuErrors,
    Distrusts,
    EndNow,
    Facts,
    Holds,
    LeftOut,
    Line,
    Order,
    Outbox,
    Pong,
    Probed,
    Returned,
    Start,
    Stopped,
    StopRun,
    Waits,
    answers,
)
from ...protocol.event_file import Interrupted
from ...protocol.interruptions import interrupt_on_sigterm, raise_again, restore_sigterm
from ...protocol.running_test import Whereabouts
from ...protocol.wire import Unpacker
from ..retry.held_back import HeldBack
from ..retry.rerouting import Edges, Rerouting
from ..schedule.machines import host_of
from . import dispatch, heartbeat
from .dispatch import Dispatch, Lending, OfItself, dispatches
from .gpus import seats_of_run
from .inbox import Arrivals
from .killing import kill
from .replacements import Replacements

if TYPE_CHECKING:
    from ...journal.recorder import Recorder
    from ..reports.accounting import Accounting
    from ..reports.resume import Resuming

own_builtins(globals())

_CAREFUL_DEATHS = 3
"""After so many deaths of workers that try every import first, it is not a test module."""

END_WAIT = 2.0
"""Seconds for workers that were told to end at once."""


@dataclass
class _Link:
    """The border to a worker.

    :param outbox: to it.
    :param inbox: from it.
    :param gone: set when nothing will come any more.
    :param whereabouts: of it, None if it has not said that it shares them.
    :param descriptor: of the memory that is shared, -1 when it need not be opened any more.
    """

    outbox: Outbox
    inbox: Unpacker = field(default_factory=answers)
    gone: threading.Event = field(default_factory=threading.Event)
    whereabouts: Whereabouts | None = None
    descriptor: int = -1

    def close(self) -> None:
        """Nobody is to open the memory any more."""
        if self.descriptor != -1:
            os.close(self.descriptor)
            self.descriptor = -1


class Nodes:
    """Plugin of the controller.

    :param show: writes a line that a test wrote.
    :param recorder: hears of all tests, if there is one.
    :param resuming: reports the verdicts of the resumed run, if there is one.
    :param lending: knows the GPUs of the run.
    :param accounting: counts verdicts.
    """

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        show: Callable[[str], None],
        recorder: Recorder | None,
        resuming: Resuming | None,
        lending: Lending | None,
        accounting: Accounting,
    ) -> None:
        self._config = config
        self._settings = settings
        self._show = show
        held_back = HeldBack(self._whereabouts)
        self._arrivals = Arrivals(config, show, recorder, held_back, accounting.hear)
        accounting.unrunnable, accounting.blamed = self.unrunnable, self._blamed
        self._resuming = resuming
        self._done: dict[Any, tuple[str, ...]] = {}
        self._facts: dict[Any, Facts] = {}
        self._in_doubt: set[Any] = set()
        self._lending = lending
        self._heartbeat = heartbeat.Heartbeat(
            settings.worker_timeout,
            heartbeat.Edges(
                self._order, self._trouble, self._distrust, self._silent, self._arrivals.add_line
            ),
        )
        self.rerouting = Rerouting(
            settings,
            Edges(show, self._arrivals.tell, self._order, self._arrivals.add),
            recorder,
        )
        self._dispatch: Dispatch | None = None
        self._replacements = Replacements(config)
        self._links: dict[Any, _Link] = {}
        self._up: set[Any] = set()
        self._killed: dict[Any, str] = {}
        self._distrusted: set[Any] = set()
        self._handlers: dict[type[Any], Callable[[Any, Any], None]] = {
            Stopped: self._has_stopped,
            Pong: self._answers,
            Line: self._line,
            LeftOut: self._left_out,
            Facts: self._learn,
            CollectionGpuErrors: self._doubt,
            Distrusts: self._is_distrusted,
            Waits: self._of_itself,
            Returned: self._of_itself,
            Probed: self._of_itself,
            Holds: self._of_itself,
        }
        self._collected: set[Any] = set()
        self._careful: set[Any] = set()
        self._careful_deaths = 0
        self._one_died_collecting = False
        self._sigterm: Any = None
        self._session: pytest.Session | None = None

    # --- orders ---

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a new worker what it can't know."""
        channel = node.gateway.newchannel()
        link = self._links[node] = _Link(Outbox(channel.send))
        self._up.add(node)
        local = not host_of(node)
        start = Start(
            channel,
            os.getpid() if local else 0,
            node.gateway.id,
            self._one_died_collecting,
            dispatches(self._config),
            self._config.getoption("dist") in ("load", "worksteal"),
            _share(link) if local else "",
            None if self._resuming is None else self._resuming.done,
        )
        node.workerinput["fkit"] = tuple(start)  # execnet carries no types of ours
        if self._one_died_collecting:
            self._careful.add(node)
        channel.setcallback(lambda data: self._hear(node, data), endmarker=None)

    # --- what workers say, in execnet's receiver threads ---

    def _hear(self, node: Any, data: bytes | None) -> None:
        link = self._links[node]
        if data is None:
            link.gone.set()
            return
        self._heartbeat.heard(node)
        told: list[Any] = []
        for message in link.inbox.feed(data):
            handler = self._handlers.get(type(message))
            if handler is None:
                told.append(message)
                continue
            self._pass_on(node, told)
            told = []
            handler(node, message)
        self._pass_on(node, told)
        if link.inbox.broken:
            self._distrust(node, link.inbox.trouble)

    def _pass_on(self, node: Any, told: list[Any]) -> None:
        if told:
            self._arrivals.add_told(node, told)

    def _answers(self, node: Any, message: Pong) -> None:
        """That was all."""

    def _doubt(self, node: Any, message: CollectionGpuErrors) -> None:
        del message
        self._in_doubt.add(node)

    def _has_stopped(self, node: Any, message: Stopped) -> None:
        del message
        self._links[node].gone.set()

    def _line(self, node: Any, message: Line) -> None:
        self._arrivals.add_line(f"[{node.gateway.id}] {message.text}")

    def _left_out(self, node: Any, message: LeftOut) -> None:
        self._done[node] = message.nodeids

    def _learn(self, node: Any, message: Facts) -> None:
        self._facts[node] = message

    def _is_distrusted(self, node: Any, message: Distrusts) -> None:
        self._kill(node, _from("the controller", message.trouble))

    def _of_itself(self, node: Any, message: OfItself) -> None:
        self._arrivals.add(lambda: self._tell(node, message))

    # --- workers that are not to be believed, or don't answer; in any thread ---

    def _trouble(self, node: Any) -> str:
        return self._links[node].inbox.trouble

    def _distrust(self, node: Any, trouble: str) -> None:
        self._kill(node, _from(f"worker {node.gateway.id}", trouble))

    def _kill(self, node: Any, reason: str) -> None:
        if node in self._killed:
            return
        self._killed[node] = reason
        self._distrusted.add(node)
        self._arrivals.add_line(f"fkit: {node.gateway.id} is killed: {reason}")
        kill(node)

    def _silent(self, node: Any) -> None:
        text = f"not answered for {self._settings.worker_timeout:g} s"
        self._killed[node] = f"it had {text}"
        self._arrivals.add_line(f"fkit: {node.gateway.id} has {text}, and is killed")
        kill(node)

    def why_killed(self, node: Any) -> str:
        """Why we killed a worker, "" if we did not."""
        return self._killed.get(node, "")

    # --- deaths ---

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any | None:
        """Take ours, unless each worker is to run everything."""
        del log
        if not dispatches(config):
            return None
        self._dispatch = self._arrivals.listener = Dispatch(
            config,
            self._settings,
            len(seats_of_run(config)),
            dispatch.Edges(
                self._order,
                self._facts.get,
                self._replacements.ended_a_test,
                self._at,
                self._arrivals.lost,
                self._show,
            ),
            self.rerouting,
            self._lending,
        )
        self._dispatch.in_doubt = self._in_doubt
        xdist_controller.on_worker_death(config, self._replacements.handle)
        return self._dispatch

    def _tell(self, node: Any, said: OfItself) -> None:
        if self._dispatch is not None:
            self._dispatch.hear(node, said)

    def _whereabouts(self, node: Any) -> Whereabouts | None:
        link = self._links.get(node)
        return None if link is None else link.whereabouts

    def _at(self, node: Any) -> int | None:
        """The position at which a dead worker was, if that is known better than by what it said."""
        whereabouts = self._whereabouts(node)
        # Who was killed for what it said was at something that has nothing to do with that.
        return None if whereabouts is None or node in self._distrusted else whereabouts.at

    def _blamed(self) -> tuple[str, int] | None:
        return None if self._dispatch is None else self._dispatch.blamed_test

    def unrunnable(self, nodeid: str) -> str:
        """Why nobody could run a test, "" if there is no such reason."""
        return "" if self._dispatch is None else self._dispatch.unrunnable.get(nodeid, "")

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count a test that died with its worker for ``-x``; xdist gives it this phase."""
        if report.when == "???":
            xdist_controller.count_crash(self._config, report)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """From now on a death is not that of an import."""
        self._collected.add(node)
        self._links[node].close()
        self._heartbeat.add(node)
        if self._resuming is not None:
            # DSession counts what was collected after this hook.
            self._arrivals.add(lambda: self._report_done(node, ids))

    def _report_done(self, node: Any, rest: list[str]) -> None:
        # When the last one has collected the terminal is through with its report on workers.
        if self._resuming is not None and xdist_controller.all_have_collected(self._config):
            self._resuming.take(self._done.get(node, ()), rest)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """Stop the run as its worker was stopped; let a worker that an import killed be replaced.

        :raises KeyboardInterrupt, pytest.exit.Exception: as plain pytest does.
        """
        self._links[node].gone.set()
        self._links[node].close()
        self._heartbeat.remove(node)
        self._up.discard(node)
        output = getattr(node, "workeroutput", {})
        for flag in ("shouldfail", "shouldstop"):
            if self._session is not None and output.get(flag):
                setattr(self._session, flag, getattr(self._session, flag) or output[flag])
        words = output.get("fkit_stop")
        if words is not None and words[0] != "internal":
            raise_again(Interrupted(*words))
        if error and node not in self._collected and not self._shutting_down():
            self._died_collecting(node)

    def _shutting_down(self) -> bool:
        dsession: Any = self._config.pluginmanager.getplugin("dsession")
        return bool(dsession is not None and dsession.shouldstop)

    def _died_collecting(self, node: Any) -> None:
        if node in self._careful:
            self._careful_deaths += 1
            if self._careful_deaths >= _CAREFUL_DEATHS:
                raise pytest.exit.Exception(
                    "workers die while they collect, though every test module is tried in a "
                    "process of its own first: a conftest.py, a plugin or a collection hook ends "
                    "the process; `pytest --collect-only` without --fkit shows which",
                    pytest.ExitCode.INTERRUPTED,
                )
        self._one_died_collecting = True
        if self._dispatch is None:
            xdist_controller.grant_restart(self._config)
        else:
            self._replacements.grant()

    # --- the end ---

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Take SIGTERM for a Ctrl-C."""
        self._session = session
        self._sigterm = interrupt_on_sigterm()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Where xdist stops the run in a way of its own, stop it as plain pytest does."""
        try:
            return (yield)
        except xdist_controller.xdist_interruption():
            if session.shouldfail:
                raise session.Failed(session.shouldfail) from None
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop) from None
            raise

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        """Let workers that are still alive end their tests and tear down, within the grace."""
        session = self._session
        reason = session is not None and session.shouldfail
        try:
            self._stop_workers()
        finally:
            self._heartbeat.close()
            restore_sigterm(self._sigterm)
            self._arrivals.handle()
            if self._dispatch is not None:
                self._dispatch.close()
            if session is not None and reason:
                # pytest counts on; what is reported from the stop on was no reason for it.
                session.shouldfail = reason
        return (yield)

    def _stop_workers(self) -> None:
        living = [node for node in self._links if node in self._up]
        if not living:
            return
        try:
            for node in living:
                node.shutdown()
                self._order(node, StopRun())
            self._await(living, self._settings.grace + END_WAIT)
        except KeyboardInterrupt:
            self._show("pytest-fkit: interrupted again, ending everything")
        for node in living:
            if not self._links[node].gone.is_set():
                self._order(node, EndNow())
        self._await(living, END_WAIT)

    def _order(self, node: Any, order: Order) -> None:
        if node not in self._up:
            return
        try:
            self._links[node].outbox.send(order)
        except OSError:  # it is gone
            self._links[node].gone.set()

    def _await(self, nodes: list[Any], limit: float) -> None:
        deadline = threading.TIMEOUT_MAX if limit == float("inf") else limit
        timer = _Countdown(deadline)
        for node in nodes:
            # In slices: on some platforms a signal does not wake a wait for a lock.
            # A worker that was interrupted before it knew of us closes xdist's channel only.
            while not self._links[node].gone.wait(min(0.2, timer.left())) and timer.left() > 0:
                self._arrivals.handle()
                if node.channel.isclosed():
                    self._links[node].gone.set()


def _share(link: _Link) -> str:
    """Make the memory that a worker on this machine shares; its path, "" if it can't be made."""
    try:
        descriptor = system.anonymous_file("whereabouts")
    except OSError:
        return ""
    try:
        os.ftruncate(descriptor, mmap.PAGESIZE)
        link.whereabouts = Whereabouts(descriptor)
        link.whereabouts.clear()
    except OSError:
        os.close(descriptor)
        return ""
    link.descriptor = descriptor
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def _from(sender: str, trouble: str) -> str:
    """As in "message 7 from worker gw0 is missing"."""
    return trouble.replace(" is ", f" from {sender} is ", 1)


class _Countdown:
    def __init__(self, seconds: float) -> None:
        self._clock = time.monotonic
        self._end = self._clock() + seconds

    def left(self) -> float:
        return max(0.0, self._end - self._clock())
