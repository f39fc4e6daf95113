"""The controller's plugin for workers: their start, their deaths, the end of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generator, Sequence

import pytest

from ...compat import xdist_controller
from ...config.settings import SETTINGS, start_limit
from ...own import os, own_builtins, threading
from ...protocol.border import OfItself, Start, Told
from ...protocol.event_file import Interrupted
from ...protocol.interruptions import interrupt_on_sigterm, raise_again, restore_sigterm
from ..retry import rerouting
from ..schedule.machines import gpu_ids, machine_of, with_gpus
from .dispatch import Dispatch
from .inbox import HeldBack, Inbox
from .links import Links
from .liveness import Replacements
from .preparation import dispatches

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from ..repeat.repeating import Repeating
    from ..reports.footer import Footer
    from ..reports.running import Said
    from ..reports.services import RunServices
    from .gateways import Gateways

own_builtins(globals())

_CAREFUL_DEATHS = 3
"""Deaths of workers that try every import first after which the cause is no test module."""


class Nodes:
    """Plugin of the controller."""

    def __init__(
        self,
        config: pytest.Config,
        services: RunServices,
        lending: Gateways | None,
        footer: Footer,
        repeating: Repeating | None,
    ) -> None:
        self._config = config
        self._services = services
        self._repeating = repeating
        self._settings = settings = config.stash[SETTINGS]
        self._lending = lending
        held_back = HeldBack(lambda node: self._links.whereabouts(node))
        self._inbox = Inbox(config, services, held_back, self._show_progress, repeating)
        self._links = Links(
            self._inbox.add_told,
            self._hear,
            self._inbox.add_line,
            settings.worker_timeout,
            self._hear_of_running,
            start_limit(settings.timeout),
        )
        self._footer = footer
        self._timer: threading.Timer | None = None
        self._timed_out = self._ends = False
        self._links.heartbeat.at_tick = self._ask_workers
        self.why_killed = self._links.why_killed
        edges = rerouting.Edges(services.show, self._inbox.tell, self._links.order, self._inbox.add)
        self.rerouting = rerouting.Rerouting(settings, edges, services.recorder)
        self._dispatch: Dispatch | None = None
        self._replacements = Replacements(config, lending, self._inbox.add)
        self._collected: set[WorkerController] = set()
        self._found_tests = False
        self._careful: set[WorkerController] = set()
        self._careful_deaths = 0
        self._one_died_collecting = False
        self._sigterm: Any = None
        self._session: pytest.Session | None = None
        self._runs = False  # whether xdist's loop is under way

    # --- the beginning ---

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session
        self._sigterm = interrupt_on_sigterm()
        deadline = self._services.deadline
        if deadline is not None:
            self._timer = threading.Timer(deadline.left, lambda: self._inbox.add(self._time_out))
            self._timer.daemon = True
            self._timer.start()

    def _time_out(self) -> None:
        """End the run at once, as a Ctrl-C does: it has taken too long.

        :raises pytest.Session.Interrupted: unless it ends already.
        """
        session, deadline = self._session, self._services.deadline
        if session is None or deadline is None or self._ends or self._is_stopping():
            return
        self._timed_out = True
        # Asked to stop, xdist would wait for the tests that run.
        raise session.Interrupted(deadline.reason)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: object) -> Dispatch | None:
        """Provide ours, unless each worker is to run everything."""
        del log
        if not dispatches(config):
            return None
        self._dispatch = self._inbox.dispatch = Dispatch(
            config,
            self._links,
            self._inbox.show,
            self._inbox.lost,
            self._replacements,
            self.rerouting,
            self._lending,
            self._repeating,
        )
        self._services.accounting.dispatch = self._dispatch
        xdist_controller.on_worker_death(config, self._replacements.handle)
        return self._dispatch

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        local = not machine_of(node)
        channel, whereabouts = self._links.open(node, local)
        start = Start(
            channel,
            os.getpid() if local else 0,
            node.gateway.id,
            self._one_died_collecting,
            dispatches(self._config),
            self._config.getoption("dist") in ("load", "worksteal"),
            whereabouts,
            None if self._services.resuming is None else self._services.resuming.done,
            self._settings.repeat_seed,
        )
        node.workerinput["fkit"] = tuple(start)  # execnet carries no types of ours
        if self._one_died_collecting:
            self._careful.add(node)
        self._links.listen(node, channel)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self, node: WorkerController) -> None:
        self._links.is_up(node)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: WorkerController, ids: list[str]) -> None:
        """From now on a death is not that of an import."""
        self._collected.add(node)
        self._found_tests = self._found_tests or bool(ids)
        self._links.has_collected(node)
        if self._services.resuming is not None:
            # DSession counts what was collected after this hook.
            self._inbox.add(lambda: self._report_done(node, ids))

    def _report_done(self, node: WorkerController, rest: list[str]) -> None:
        # When the last worker has collected, the terminal is through with its report on workers.
        resuming = self._services.resuming
        if resuming is not None and xdist_controller.all_have_collected(self._config):
            left_out = self._links.left_out.get(node)
            resuming.report(left_out.nodeids if left_out else (), rest)

    def _hear(self, node: WorkerController, said: OfItself) -> None:
        """Handle what a worker says of itself; called in execnet's receiver threads."""

        def hear() -> None:
            if self._dispatch is not None:
                self._dispatch.hear(node, said)

        self._inbox.add(hear)

    # --- what runs now ---

    def _show_progress(self, node: WorkerController, told: Sequence[Told]) -> None:
        if self._footer.is_shown:
            name = node.gateway.id
            self._footer.hear(name, with_gpus(name, gpu_ids(node), machine_of(node)), told)

    def _draw(self) -> None:
        if self._runs:
            self._footer.draw({} if self._dispatch is None else self._dispatch.expected)

    def _ask_workers(self) -> None:
        """Ask if somebody wants to know; called in the heartbeat's thread."""
        running = self._services.running
        if running.take_question():
            running.awaits(self._links.ask_what_runs())
        for worker in running.silent():
            self._links.show(f"fkit: {worker} does not say what it runs")
        if self._footer.is_shown:
            self._inbox.add(self._draw)

    def _hear_of_running(self, node: WorkerController, said: Said) -> None:
        """Show what a worker says; called in execnet's receiver threads."""
        own, name, machine = gpu_ids(node), node.gateway.id, machine_of(node)
        self._inbox.add(lambda: self._services.running.hear(name, own, said, machine))

    # --- deaths ---

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test that died with its worker for ``-x``; xdist gives it this phase."""
        if str(report.when) == "???":
            xdist_controller.count_crash(self._config, report)

    @pytest.hookimpl(optionalhook=True, wrapper=True, tryfirst=True)
    def pytest_testnodedown(
        self, node: WorkerController, error: object | None
    ) -> Generator[None, object, object]:
        """Stop the run as its worker was stopped; replace a worker that an import killed.

        Others, which may want what the worker put into its output, are called before the stop.

        :raises KeyboardInterrupt, pytest.exit.Exception, pytest.UsageError: as plain pytest does.
        """
        self._links.down(node)
        self._footer.lost(node.gateway.id)
        output = getattr(node, "workeroutput", {})
        for flag in ("shouldfail", "shouldstop"):
            if self._session is not None and output.get(flag):
                setattr(self._session, flag, getattr(self._session, flag) or output[flag])
        result = yield
        words = output.get("fkit_stop")
        # Where others found tests, these go on: a test may have removed a file.
        goes_on = ("internal", "usage") if self._found_tests else ("internal",)
        if words is not None and words[0] not in goes_on:
            raise_again(Interrupted(*words))
        if error and node not in self._collected and not self._is_stopping():
            self._died_collecting(node)
        return result

    def _is_stopping(self) -> bool:
        dsession: Any = self._config.pluginmanager.getplugin("dsession")
        return bool(dsession is not None and dsession.shouldstop)

    def _died_collecting(self, node: WorkerController) -> None:
        if node in self._careful:
            if self._collected:
                return  # others can, so that nothing ends every process; it counts as any death
            self._careful_deaths += 1
            if self._careful_deaths >= _CAREFUL_DEATHS:
                raise pytest.exit.Exception(
                    "workers die while they collect, though every test module is tried in a "
                    "process of its own first: a conftest.py, a plugin or a collection hook ends "
                    "the process; `pytest --collect-only` without --fkit shows which, and "
                    "`gdb -ex run --args python -m pytest --collect-only` in which native function",
                    pytest.ExitCode.INTERRUPTED,
                )
        self._one_died_collecting = True
        if self._dispatch is None:
            xdist_controller.grant_restart(self._config)
        else:
            self._replacements.grant()

    # --- the end ---

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Where xdist stops the run in a way of its own, stop it as plain pytest does."""
        self._runs = True
        try:
            return (yield)
        except xdist_controller.xdist_interruption():
            if session.shouldfail:
                raise session.Failed(session.shouldfail) from None
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop) from None
            raise
        finally:
            self._runs = False

    @pytest.hookimpl(wrapper=True)
    def pytest_internalerror(self) -> Generator[None, object, object]:
        """Stop the run for an error in a hook in a worker; xdist shows it, and may end with 0.

        :raises pytest.exit.Exception: with the exit status of plain pytest.
        """
        result = yield
        if self._runs:
            text = "a hook failed in a worker, see INTERNALERROR above"
            raise pytest.exit.Exception(text, pytest.ExitCode.INTERNAL_ERROR)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        """Let workers that are still alive end their tests and tear down, within the grace."""
        session = self._session
        self._ends = True
        reason = session is not None and session.shouldfail
        drain = self._settings.grace / 2 if self._timed_out else 0.0
        if self._timer is not None:
            self._timer.cancel()
        try:
            show = self._services.show
            self._links.stop_workers(self._settings.grace, self._handle_rest, show, drain)
        finally:
            self._links.heartbeat.close()
            restore_sigterm(self._sigterm)
            self._handle_rest()
            if self._dispatch is not None:
                self._dispatch.close()
            if self._repeating is not None:
                self._repeating.conclude_all()
            if session is not None and reason:
                # pytest counts on; what is reported after the stop was no reason for it.
                session.shouldfail = reason
        return (yield)

    def _handle_rest(self) -> None:
        """Handle what came since the run ended, which has its exit status by now."""
        try:
            self._inbox.handle()
        except SystemExit:
            # Of a hook that hears of a report: pytest would exit with the hook's status, maybe 0.
            session = self._session
            if session is None:
                raise
            session.config.notify_exception(pytest.ExceptionInfo.from_current())
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
