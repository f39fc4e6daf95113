"""The workers as the controller sees them: their orders, their deaths, the end of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Generator

import pytest

from .. import private_api
from ..interruptions import raise_again
from ..messages import Interrupted
from ..own import os, own_builtins, threading, time
from ..settings import Settings
from ..sigterm import interrupt_on_sigterm, restore_sigterm
from .arrivals import Arrivals
from .dispatch import Dispatch, Lending, dispatches
from .gpus import seats_of_run
from .heartbeat import Heartbeat
from .replacements import Replacements
from .rerouting import Edges, Rerouting

if TYPE_CHECKING:
    from ..journal.recorder import Recorder
    from .resume import Resuming

own_builtins(globals())

_CAREFUL_DEATHS = 3
"""After so many deaths of workers that try every import first, it is not a test module."""

END_WAIT = 2.0
"""Seconds for workers that were told to end at once."""


class Nodes:
    """Plugin of the controller.

    :param show: writes a line that a test wrote.
    :param recorder: hears of all tests, if there is one.
    :param resuming: reports verdicts of the run that is gone on with, if there is one.
    :param lending: knows the GPUs of the run.
    """

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        show: Callable[[str], None],
        recorder: Recorder | None,
        resuming: Resuming | None,
        lending: Lending | None,
    ) -> None:
        self._config = config
        self._settings = settings
        self._show = show
        self._arrivals = Arrivals(config, show, recorder)
        self._resuming = resuming
        self._done: dict[Any, list[str]] = {}
        self._facts: dict[Any, bytes] = {}
        self._in_doubt: set[Any] = set()
        self._lending = lending
        self._heartbeat = Heartbeat(settings.worker_timeout, self._order, self._arrivals.add_line)
        self.rerouting = Rerouting(
            settings,
            Edges(show, self._arrivals.tell, self._order, self._arrivals.add),
            recorder,
        )
        self._dispatch: Dispatch | None = None
        self._replacements = Replacements(config)
        self._channels: dict[Any, Any] = {}
        self._gone: dict[Any, threading.Event] = {}
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
        node.workerinput["fkit"] = {
            "channel": channel,
            "controller": os.getpid(),
            "worker": node.gateway.id,
            "careful": self._one_died_collecting,
            "dispatches": dispatches(self._config),
            "groups": self._config.getoption("dist") in ("load", "worksteal"),
        }
        if self._one_died_collecting:
            self._careful.add(node)
        gone = threading.Event()
        self._channels[node], self._gone[node] = channel, gone

        channel.setcallback(lambda message: self._heard(node, message), endmarker=None)

    def _heard(self, node: Any, message: Any) -> None:
        # Called in execnet's receiver thread.
        kind, *values = message or ("stopped",)
        if kind == "stopped":
            self._gone[node].set()
        elif kind == "pong":
            self._heartbeat.answered(node)
        elif kind == "line":
            self._arrivals.add_line(f"[{node.gateway.id}] {values[0]}")
        elif kind == "reports":
            self._arrivals.add_reports(node, values[0])
        elif kind == "done":
            self._done[node] = values[0]
        elif kind == "collected":
            self._facts[node] = values[0]
        elif kind == "collection_gpu_errors":
            self._in_doubt.add(node)
        else:  # "waits", "returned", "probed"
            self._arrivals.add(lambda: self._tell(kind, node, *values))

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
            self._order,
            self._facts.get,
            self._replacements.ended_a_test,
            self.rerouting,
            self._show,
            self._lending,
        )
        self._dispatch.in_doubt = self._in_doubt
        private_api.on_worker_death(config, self._replacements.handle)
        return self._dispatch

    def _tell(self, what: str, node: Any, *values: Any) -> None:
        if self._dispatch is not None:
            getattr(self._dispatch, what)(node, *values)

    def unrunnable(self, nodeid: str) -> str:
        """Why nobody could run a test, "" if there is no such reason."""
        return "" if self._dispatch is None else self._dispatch.unrunnable.get(nodeid, "")

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count a test that died with its worker for ``-x``; xdist gives it this phase."""
        if report.when == "???":
            private_api.count_crash(self._config, report)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """From now on a death is not that of an import."""
        self._collected.add(node)
        self._heartbeat.add(node)
        if self._resuming is not None:
            # DSession counts what was collected after this hook.
            self._arrivals.add(lambda: self._report_done(node, ids))

    def _report_done(self, node: Any, rest: list[str]) -> None:
        # When the last one has collected the terminal is through with its report on workers.
        if self._resuming is not None and private_api.all_have_collected(self._config):
            self._resuming.take(self._done.get(node, []), rest)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """Stop the run as its worker was stopped; let a worker that an import killed be replaced.

        :raises KeyboardInterrupt, pytest.exit.Exception: as plain pytest does.
        """
        self._gone[node].set()
        self._heartbeat.remove(node)
        del self._channels[node]
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
            private_api.grant_restart(self._config)
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
        except private_api.xdist_interruption():
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
        living = list(self._channels)
        if not living:
            return
        try:
            for node in living:
                node.shutdown()
                self._order(node, "stop")
            self._await(living, self._settings.grace + END_WAIT)
        except KeyboardInterrupt:
            self._show("pytest-fkit: interrupted again, ending everything")
        for node in living:
            if not self._gone[node].is_set():
                self._order(node, "kill")
        self._await(living, END_WAIT)

    def _order(self, node: Any, order: str | tuple[Any, ...]) -> None:
        channel = self._channels.get(node)
        try:
            if channel is not None:
                channel.send(order)
        except OSError:  # it is gone
            self._gone[node].set()

    def _await(self, nodes: list[Any], limit: float) -> None:
        deadline = threading.TIMEOUT_MAX if limit == float("inf") else limit
        timer = _Countdown(deadline)
        for node in nodes:
            # In slices: on some platforms a signal does not wake a wait for a lock.
            # A worker that was interrupted before it knew of us closes xdist's channel only.
            while not self._gone[node].wait(min(0.2, timer.left())) and timer.left() > 0:
                self._arrivals.handle()
                if node.channel.isclosed():
                    self._gone[node].set()


class _Countdown:
    def __init__(self, seconds: float) -> None:
        self._clock = time.monotonic
        self._end = self._clock() + seconds

    def left(self) -> float:
        return max(0.0, self._end - self._clock())
