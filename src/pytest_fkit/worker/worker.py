"""The plugin of an xdist worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generator, Iterator

import pytest

from .. import system
from ..compat import pytest_output, pytest_session, xdist_worker
from ..compat.foreign_warnings import make_portable
from ..compat.guarded_hooks import GuardedHooks
from ..config.settings import SETTINGS, Settings, start_limit
from ..gpu.slices.ownership import MACHINE_TOLD, one_of_several, owned_by
from ..own import contextmanager, os, own_builtins, signal, suppress, threading
from ..protocol import whereabouts
from ..protocol.border import (
    GAP_WAIT,
    Alive,
    CheckAlive,
    CollectionGpuErrors,
    DescribeRunning,
    Distrusts,
    EndNow,
    LeftOut,
    Line,
    NothingRuns,
    Order,
    Outbox,
    Probed,
    Start,
    Stopped,
    StopRun,
    orders,
)
from ..protocol.event_file import GpuError
from ..protocol.interruptions import interruption
from ..sandbox.keeper.debugger import is_wanted
from ..sandbox.process.steps import Steps, run_steps
from .controller_watch import ControllerWatch
from .keeper_link import KeeperClient
from .loop import TestLoop
from .reports.gpu_reports import own_gpus, xids_of_tests
from .reports.held_reports import HeldReports
from .reports.reports import Reports, WorkerReports
from .reports.rerunfailures import Reruns
from .reports.terminal_output import Lines
from .tests.imports import CarefulCollection, Collection, LimitedCollection
from .tests.leftovers import unforkable
from .tests.orders import Requests, facts
from .tests.sources import Assigned, Dispatched, Resumed, Tests

if TYPE_CHECKING:
    import warnings

    from xdist.remote import WorkerInteractor

    from .probing import Probing

own_builtins(globals())


class Worker:
    """Collects, runs the tests that the controller orders, and reports to it.

    :param start: from workerinput.
    """

    def __init__(self, config: pytest.Config, settings: Settings, start: Start) -> None:
        self._config = config
        self._settings = settings
        self._outbox = Outbox(start.channel.send)
        self._orders = orders()
        self._doubts: threading.Timer | None = None
        self._controller = _bound_to(start.controller)
        self._name = start.worker
        self._lines = Lines(self.show)
        self._groups = start.groups
        self._whereabouts = whereabouts.shared(start.whereabouts)
        if self._whereabouts is not None:
            config.stash[whereabouts.WHEREABOUTS] = self._whereabouts
        self._dispatched: Dispatched | None = None
        if start.dispatches:
            owns = owned_by(config) is not None and settings.probe
            self._dispatched = Dispatched(self._outbox.send, self._probe if owns else None)
        self._loop: TestLoop | None = None
        self.probing: Probing | None = None
        """Probes the GPUs, where there are any."""
        self._probed = False
        self._stopped = False
        self._interrupted = False
        self._watch: ControllerWatch | None = None
        if config.workerinput.get(MACHINE_TOLD):  # type: ignore[attr-defined]
            self._watch = ControllerWatch(settings.worker_timeout)
        self._register_collection(start)
        # Registered last, to wrap those: the clock of an import is a native thread.
        self._unforkable = unforkable(config, settings)
        if start.done is not None:
            resumed = Resumed(start.done, lambda done, _: self._outbox.send(LeftOut(tuple(done))))
            config.pluginmanager.register(resumed, "fkit-resumed")
        start.channel.setcallback(self._hear)

    def _register_collection(self, start: Start) -> None:
        """Register the plugins that watch the collection."""
        plugins, limit = self._config.pluginmanager, start_limit(self._settings.timeout)
        plugins.register(Collection(), "fkit-collection")
        if start.careful:
            plugins.register(CarefulCollection(limit, is_wanted(self._settings)), "fkit-careful")
        elif limit:
            plugins.register(LimitedCollection(limit), "fkit-limited")
        if owned_by(self._config) is not None:
            from .probing import CollectionErrors

            errors = CollectionErrors(
                self._config, lambda found: self._outbox.send(CollectionGpuErrors(tuple(found)))
            )
            plugins.register(errors, "fkit-collection-errors")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self) -> Generator[None, object, object]:
        """Watch the controller, to whom xdist has just said that this worker is ready.

        Tell it why nothing can be collected: it sees an empty collection only.
        """
        if self._watch is not None:
            self._watch.begin()
        try:
            return (yield)
        except pytest.UsageError as error:
            self._config.workeroutput["fkit_stop"] = tuple(interruption(error))  # type: ignore[attr-defined]
            raise

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        """After xdist, at ``--dist loadgroup``: make sure that node ids have their groups."""
        result = yield
        xdist_worker.apply_xdist_groups(items)
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Before xdist sends the node ids: send facts about the tests."""
        if self._dispatched is not None:
            reruns, patterns = Reruns(session.config), self._settings.serial_patterns
            requests = Requests(session, self._settings, self._unforkable, reruns)
            self._outbox.send(facts(session, requests, self._groups, patterns))

    def _doubt(self) -> None:
        if self._dispatched is not None:
            self._dispatched.doubt()

    def _hold(self, position: int, error: GpuError) -> None:
        if self._dispatched is not None and self._settings.retire_after:
            self._dispatched.hold(position, error)

    def _probe(self) -> bool:
        """Probe the GPUs and tell the controller; whether they are fit for tests."""
        assert self.probing is not None
        health = self.probing.again() if self._probed else self.probing.first()
        self._probed = True
        self._outbox.send(Probed(health.state, health.reason))
        return health.state != "sick"

    def show(self, line: str) -> None:
        """Write a line to the controller's terminal."""
        self._outbox.send(Line(line))

    def _hear(self, data: bytes) -> None:
        # Called in execnet's receiver thread.
        if self._watch is not None:
            self._watch.heard()
        for order in self._orders.feed(data):
            self._obey(order)
        if self._orders.broken:
            self._distrust()
        elif self._orders.trouble and self._doubts is None:
            self._doubts = threading.Timer(GAP_WAIT, self._distrust)
            self._doubts.daemon = True
            self._doubts.start()

    def _distrust(self) -> None:
        """End this worker, unless the missing order has arrived."""
        self._doubts = None
        trouble = self._orders.trouble
        if not trouble:
            return
        with suppress(OSError):  # the controller is gone
            self._outbox.send(Distrusts(trouble))
        os._exit(1)

    def _obey(self, order: Order) -> None:
        if isinstance(order, EndNow):
            os._exit(1)  # the keeper notices, and ends everything below
        if isinstance(order, StopRun):
            self._stop(order.drain)
        elif isinstance(order, CheckAlive):
            self._outbox.send(Alive())
        elif isinstance(order, DescribeRunning):
            self._describe()
        elif self._dispatched is not None:
            self._dispatched.obey(order)

    def _describe(self) -> None:
        watch = None if self._loop is None else self._loop.watch
        if watch is None or not watch.busy:
            self._outbox.send(NothingRuns())
        else:  # the thread that waits for the test will see it
            watch.ask()

    def _stop(self, drain: float) -> None:
        self._stopped = True
        if self._dispatched is not None:
            self._dispatched.end()
        if self._loop is not None:
            self._loop.stopping.order(drain)
        elif not self._interrupted:  # still collecting
            os.kill(os.getpid(), signal.SIGINT)

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        """Remember that Ctrl-C reached this process as well as the controller."""
        self._interrupted = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        """Before xdist sends it: keep the controller from importing test modules for it."""
        make_portable(warning_message)

    # Wrappers of other plugins, pytest-cov for example, wrap this one as they wrap xdist's loop.
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests that the controller orders, in the place of xdist's loop."""
        run_steps(self._run(session))
        return True

    def _run(self, session: pytest.Session) -> Steps[None]:
        interactor = xdist_worker.worker_interactor(self._config)
        assert interactor is not None
        descriptors = xdist_worker.worker_descriptors(interactor)
        keeper = KeeperClient(session, descriptors, self._controller, self._forks(session))
        pytest_session.resolve_basetemp(self._config)
        pytest_output.forget_reports_of_worker(self._config)
        index = {item: number for number, item in enumerate(session.items)}
        reports: Reports
        reports = sent = WorkerReports(
            self._config,
            self._outbox.send,
            interactor,
            index,
            self._whereabouts,
            self._settings.repeat is None,
        )
        owned = owned_by(self._config)
        if owned is not None or self._settings.network_retries or one_of_several(self._config):
            reports = HeldReports(
                sent,
                owned,
                self._name,
                self._doubt,
                lambda item, error: self._hold(index[item], error),
                None if owned is None else xids_of_tests(self._config, owned),
            )
        loop = self._loop = TestLoop(
            session, self._settings, keeper, self._name, self._lines, reports, self._unforkable,
            self._doubt, self._outbox.send,
        )  # fmt: skip
        if self._stopped:
            loop.stopping.order()
        try:
            with _ignoring_interrupts(keeper):
                yield from loop.run_all(self._tests(interactor))
        except (KeyboardInterrupt, pytest.exit.Exception, pytest.UsageError) as error:
            self._config.workeroutput["fkit_stop"] = tuple(loop.stopping.reason(error))  # type: ignore[attr-defined]
            raise
        finally:
            loop.finish()

    def _forks(self, session: pytest.Session) -> int:
        if self._settings.isolation != "function":
            return 0
        workers: int = session.config.workerinput["workercount"]  # type: ignore[attr-defined]
        return len(session.items) // workers

    def _tests(self, interactor: WorkerInteractor) -> Tests:
        if self._dispatched is None:
            assigned = xdist_worker.AssignedTests(interactor)
            assigned.begin()
            return Assigned(assigned)
        xdist_worker.on_end_of_tests(interactor, self._dispatched.end)
        return self._dispatched

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Tell the controller, which may be waiting, that no process is left."""
        if self._watch is not None and "FKIT_MACHINE" in os.environ:
            self._watch.rest()
        elif self._watch is not None:
            self._watch.close()  # a socket server's process serves other runs as well
        with suppress(OSError):  # the controller is gone
            self._outbox.send(Stopped())


def _bound_to(controller: int) -> int:
    """Have this worker end with its controller; its pid, 0 if that can't be.

    It is on another machine then, or a proxy started this worker.
    """
    # 0 is also the parent of who was started in a container from outside.
    if not controller or os.getppid() != controller:
        return 0
    system.die_with_parent(controller)
    return controller


@contextmanager
def _ignoring_interrupts(keeper: KeeperClient) -> Iterator[None]:
    """Within the block leave Ctrl-C to the controller, who has the loop stop.

    The terminal signals both; that and the controller's order would count as two.
    """
    handler = signal.signal(signal.SIGINT, lambda *_: None)
    keeper.at_start = lambda: signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def take_orders(config: pytest.Config, start: Start) -> None:
    """Register the plugins of a worker."""
    if start.seed is not None:
        config.stash[SETTINGS] = config.stash[SETTINGS]._replace(repeat_seed=start.seed)
        # The controller counts: a failure of a repetition is no verdict.
        config.option.maxfail = 0
        if hasattr(config.option, "force_reruns"):  # of pytest-rerunfailures, which hides failures
            config.option.force_reruns = 0
    if config.workerinput.get(MACHINE_TOLD):  # type: ignore[attr-defined]
        # xdist names a directory of the controller's machine, above which nothing may be there.
        config.option.basetemp = None
    worker = Worker(config, config.stash[SETTINGS], start)
    config.pluginmanager.register(worker, "fkit-worker")
    config.pluginmanager.register(GuardedHooks(config), "fkit-guarded")
    own_gpus(config, start.worker, worker.show)
    if owned_by(config) is not None:
        from .probing import probe_gpus

        show = None if start.dispatches else worker.show
        worker.probing = probe_gpus(config, start.worker, show)
