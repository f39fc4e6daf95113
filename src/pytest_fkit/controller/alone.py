"""The plugin of pytest itself at ``-n0``, where it takes the place of the only worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ..compat import pytest_output, pytest_session, xdist_worker
from ..config.settings import ALONE, SETTINGS, Settings
from ..gpu.slices.ownership import OWNED, XIDS
from ..own import own_builtins
from ..protocol.interruptions import interrupt_on_sigterm, restore_sigterm
from ..sandbox.process.steps import Steps, run_steps
from ..system.unforkable import in_bad_fork
from ..worker.keeper_link import KeeperClient
from ..worker.loop import TestLoop
from ..worker.reports.gpu_reports import own_gpus, xids_of_tests
from ..worker.reports.reports import LocalReports
from ..worker.reports.terminal_output import Unchanged
from ..worker.tests.imports import Collection
from ..worker.tests.leftovers import unforkable
from ..worker.tests.sources import AllTests

if TYPE_CHECKING:
    from .reports.services import RunServices

own_builtins(globals())


def take_place(config: pytest.Config, services: RunServices) -> None:
    """Register the plugins of a pytest process that runs tests itself."""
    alone = Alone(config, config.stash[SETTINGS], services)
    config.pluginmanager.register(alone, "fkit-alone")
    own_gpus(config, ALONE, services.show)


class Alone(Collection):
    """Plugin of a pytest process that runs tests without xdist."""

    def __init__(self, config: pytest.Config, settings: Settings, services: RunServices) -> None:
        self._settings = settings
        self._services = services
        self._sigterm: Any = None
        self._loop: TestLoop | None = None
        self._unforkable = unforkable(config, settings)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Treat SIGTERM as a Ctrl-C."""
        self._sigterm = interrupt_on_sigterm()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Set the exit status that a plugin set in the process that ran the tests."""
        exitstatus = None if self._loop is None else self._loop.messages.exitstatus
        if exitstatus is not None:
            session.exitstatus = exitstatus

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Restore SIGTERM's handler."""
        restore_sigterm(self._sigterm)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Run all tests, unless there is nothing to run."""
        config = session.config
        errors = session.testsfailed and not config.option.continue_on_collection_errors
        if errors or config.option.collectonly:
            return None
        if self._services.resuming is not None:
            self._services.resuming.take_here()
        pytest_session.resolve_basetemp(config)
        run_steps(self._run(session))
        return True

    def _restore_signals(self) -> None:
        restore_sigterm(self._sigterm)
        self._services.running.restore()

    def _configure_node(self, session: pytest.Session, loop: TestLoop) -> None:
        """Before a keeper is forked: let plugins fill the ``workerinput`` of fresh interpreters."""
        config = session.config
        if not xdist_worker.configures_nodes(config):
            return
        owns = config.stash.get(OWNED, None) is not None
        if owns or in_bad_fork() or any(map(self._unforkable, session.items)):
            try:
                xdist_worker.configure_node(config)
            except Exception as error:  # noqa: BLE001 (other people's code)
                what = f"{type(error).__name__}: {error}"
                loop.messages.warn(f"pytest_configure_node, for fresh interpreters, raised {what}")

    def _run(self, session: pytest.Session) -> Steps[None]:
        config = session.config
        lines = Unchanged(pytest_output.terminal_writer(config))
        forks = len(session.items) if self._settings.isolation == "function" else 0
        owned, here = config.stash.get(OWNED, None), config.stash.get(XIDS, None)
        keeper = KeeperClient(session, [] if here is None else [here.descriptor], 0, forks)
        keeper.at_start = self._restore_signals
        about = self._services.recorder, self._services.accounting, session.items
        screen = self._services.screen
        xids = None if owned is None else xids_of_tests(config, owned)
        if owned is None or xids is None:
            reports = LocalReports(*about, owned, screen)
        else:
            from ..worker.reports.xids_of_tests import ReportsWithXids

            reports = ReportsWithXids(*about, owned, xids, screen)
        loop = self._loop = TestLoop(
            session, self._settings, keeper, ALONE, lines, reports, self._unforkable,
            tell=lambda said: self._services.running.here(ALONE, said),
            deadline=self._services.deadline,
        )  # fmt: skip
        running = self._services.running
        running.on_ask = loop.watch.ask
        if running.take_question():  # before there was anybody to answer
            loop.watch.ask()
        self._configure_node(session, loop)
        try:
            yield from loop.run_all(AllTests(len(session.items)))
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
        finally:
            loop.finish()
