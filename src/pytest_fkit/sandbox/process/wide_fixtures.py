"""Wide fixtures: class, module, package and session scope, set up once, in the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Generator, NoReturn

import pytest

from ...compat import pytest_fixtures, pytest_hooks, pytest_nodes, pytest_reports
from ...gpu.errors.exceptions import mark_event
from ...own import own_builtins, time
from ...protocol.descriptors import slots
from ...protocol.event_file import WideOutput, WideSetup, WideSetupDone, WideTeardown
from ...protocol.plain_values import carriable
from .excerpts import read_ends
from .fork_watch import HOOKS, ForkWatch
from .output import flush
from .phases import Phases
from .relay import Relay

if TYPE_CHECKING:
    from .gpu_failures import GpuFailures

own_builtins(globals())

_COLLECTORS = ""


class LeaveForHost(BaseException):
    """Raised in a child to unwind the setup of a test whose wide fixture the host lacks.

    Not an Exception: fixtures may catch those.
    """

    def __init__(self, argname: str) -> None:
        super().__init__(argname)
        self.argname = argname


class WideFixtures:
    """Plugin of a test process; knows which wide fixtures are set up here and which must not be.

    :param broken: by key, why setting up a wide fixture killed a process before.
    :param watch: whether to look for what wide fixtures leave that does not survive a fork.
    :param gpu_failures: hears what fixtures raise, where there are GPUs.
    """

    def __init__(
        self,
        session: pytest.Session,
        relay: Relay,
        broken: dict[str, str],
        watch: bool,
        gpu_failures: GpuFailures | None,
    ) -> None:
        self._session = session
        self._relay = relay
        self._broken = broken
        self._gpu_failures = gpu_failures
        self._active: list[Any] = []
        self._dropped: list[Any] = []
        self._may_leave = False
        self._takes_requests = False
        self._owns_all = True
        self._leaving: LeaveForHost | None = None
        self._leave_at_once: Callable[[str], NoReturn] | None = None
        self._refused: set[str] = set()
        self._failed: tuple[pytest.Item, BaseException] | None = None
        self._begun: pytest.Item | None = None
        self._sets_up = False  # whether a collector above it has a setup of its own
        self._fill_late: Callable[[], None] | None = None
        self._get_out: Callable[[], None] | None = None
        self._raised: list[Any] = []
        self._out_of_context: list[str] = []
        self._phases = Phases(session)
        self.watch = ForkWatch(session, watch)
        session.config.pluginmanager.register(_Collectors(self), "fkit-collectors")

    # --- in the child ---

    def leave_to_host(self) -> None:
        """In a new child: what is set up is the host's to tear down, but for its test itself."""
        self._dropped = pytest_fixtures.forget_finalizers(self._session, self._active, self._begun)
        self._begun = None
        self._owns_all = False

    def enter_child(
        self, refused: set[str], item: pytest.Item, leave_at_once: Callable[[str], NoReturn]
    ) -> None:
        """In a child that knows its test: ask the host for what is missing.

        :param refused: wide fixtures that the host was asked for already, in vain.
        :param leave_at_once: ends the child, to have the host set a wide fixture up.
        """
        self._leave_at_once = leave_at_once
        self._refused = refused
        self._may_leave = True
        self._takes_requests = pytest_fixtures.takes_requests(item)

    @property
    def leaving(self) -> LeaveForHost | None:
        """Why this child has to leave, if it has to."""
        return self._leaving

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: Any, request: Any
    ) -> Generator[None, object, object]:
        """Leave a child for a fixture that belongs into the host; announce the others."""
        __tracebackhide__ = True
        if not _is_wide(request):
            self._leave_at_once = None  # what it did has to be undone
            if self._fill_late is not None:
                self._leave_before(fixturedef, self._fill_late)
            return (yield)
        name = fixturedef.argname
        key = "::".join((str(fixturedef.baseid), name, str(request.param_index))) + (
            f"@{request.node.nodeid}"
        )
        if key in self._broken:
            pytest.fail(self._broken[key], pytrace=False)
        may_leave = self._may_leave and self._takes_requests and name not in self._refused
        if may_leave and self._relay.phase == "setup":
            self._leave(name)
        label = f"{request.scope}-scoped fixture {name!r}"
        self._relay.send(WideSetup(key, label, time.time()))
        try:
            return (yield)
        except BaseException as error:
            self._raised.append(fixturedef)
            # pytest raises this object again for every test that needs the fixture.
            if self._gpu_failures is not None:
                mark_event(error, f"{key}#{time.monotonic_ns()}")
            raise
        finally:
            self._relay.send(WideSetupDone(time.time()))
            if fixturedef not in self._active:
                self._active.append(fixturedef)
            self.watch.fixture_is_set_up(fixturedef, label)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        """Make sure that a process that has to leave does, whatever caught the reason."""
        __tracebackhide__ = True
        try:
            result = yield
            if self._fill_late is not None:
                self._fill_late()
        except BaseException:
            if self._leaving is None:
                raise
        if self._leaving is not None:
            if self._get_out is not None:
                self._get_out()
            # The runner lets this one class pass, where it would report any other.
            raise pytest.exit.Exception("leaves for its host") from None
        self._may_leave = False
        return result

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        """Tear down what the child itself set up, though the next test might share it."""
        __tracebackhide__ = True
        try:
            return (yield)
        finally:
            if not self._owns_all:
                pytest_fixtures.tear_down(self._session, None)

    def _leave_before(self, fixturedef: Any, fill: Callable[[], None]) -> None:
        """Where a plugin asks for a fixture of the test before the test does."""
        try:
            fill()
        except LeaveForHost:
            pytest_fixtures.forget_setup(fixturedef)
            raise

    def raise_failed_teardown(self, item: pytest.Item) -> None:
        """Raise what a wide fixture raised when it was torn down, to be set up anew for `item`.

        As plain pytest does, where it gets another parameter; who asks again finds that done.
        """
        failed, self._failed = self._failed, None
        if failed is not None and failed[0] is item:
            raise failed[1]

    def see_to_collectors(self, item: pytest.Item) -> None:
        """If a collector above `item` has a setup of its own: in the host run it, else leave."""
        begun = self._begun is item
        if not begun and (not self._may_leave or _COLLECTORS in self._refused):
            return
        missing = pytest_fixtures.missing_collector(item)
        if missing is None:
            return
        if missing.nodeid in self._broken:
            pytest.fail(self._broken[missing.nodeid], pytrace=False)
        if not begun:
            self._leave(_COLLECTORS)
        self._set_up_collectors(item)

    def _leave(self, argname: str) -> None:
        if self._leave_at_once is not None:
            # As if the child had never been: wrappers of hooks may write files when they unwind.
            self._leave_at_once(argname)
        self._leaving = LeaveForHost(argname)
        self._relay.muted = True
        raise self._leaving

    # --- in a host that begins a test ---

    def begins(self, item: pytest.Item) -> bool:
        """Whether the host can begin a test, for a child to go on with it."""
        return (
            HOOKS not in self._broken
            and pytest_fixtures.fills_in_setup(item)
            and not pytest_hooks.others_run(item)
            and not pytest_nodes.starts_threads(item)
        )

    def wants(self, item: pytest.Item) -> bool:
        """Whether something is to be set up for a test that others share with it."""
        missing = pytest_fixtures.missing_fixture(item) or pytest_fixtures.missing_collector(item)
        return missing is not None

    def begin(self, item: pytest.Item, fill_late: Callable[[], None]) -> None:
        """The host begins a test.

        :param fill_late: called when something of its own is set up, and when all is.
        """
        self._begun = item
        self._sets_up = pytest_fixtures.missing_collector(item) is not None
        self._fill_late = fill_late
        self._out_of_context = []
        self.watch.begin()

    def end(self) -> None:
        """It is through with it."""
        self._begun = self._fill_late = self._get_out = self._leaving = None
        self._relay.muted = False
        self.watch.end()

    def enter_begun(self) -> None:
        """In the child that goes on with it."""
        self._fill_late = None
        self.watch.end()

    def hooks_ran(self, item: pytest.Item) -> None:
        """Hooks, and maybe collectors, have run their part in the setup of the test."""
        self.watch.hooks_ran(item, self._sets_up)

    def set_up_first(self, item: pytest.Item) -> BaseException | None:
        """Set up, in the midst of the item's setup, what comes before fixtures of its own.

        :return: what one of them raised.
        :raises pytest.exit.Exception, KeyboardInterrupt: to be passed on.
        """
        self.hooks_ran(item)
        with self.watch.fixtures():
            try:
                for name in pytest_fixtures.first_wide_fixtures(item):
                    pytest_fixtures.fill_in(item, name)
            except (pytest.exit.Exception, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 (raised again in the child)
                if self._gpu_failures is not None:
                    self._gpu_failures.met(item, error, _captured_so_far())
                return error
        return None

    def set_up_for_child(self, item: pytest.Item, name: str) -> None:
        """Set up, at the same place, what a child asked for in the midst of its own fixtures.

        If that raises it may be because these are not there: then the child sets it up itself.
        """
        self._out_of_context.append(name)
        self._raised = []
        with self.watch.fixtures():
            try:
                pytest_fixtures.fill_in(item, name)
            except (pytest.exit.Exception, KeyboardInterrupt):
                raise
            except BaseException:  # noqa: BLE001 (the child will meet it)
                for fixturedef in self._raised:
                    pytest_fixtures.forget_setup(fixturedef)

    def blame(self, found: str) -> None:
        """Put down what a child found, and this host must have left, to a fixture."""
        self.watch.blame(self._active, found)

    @property
    def refused(self) -> tuple[str, ...]:
        """What was set up for a child of this test, or could not be."""
        return tuple(self._out_of_context)

    def leave_test(self, get_out: Callable[[], None]) -> NoReturn:
        """Get out of a test that a child ran.

        :param get_out: called when the setup of it is left.
        """
        self._relay.muted = True
        self._get_out = get_out
        self._leaving = LeaveForHost("")
        raise self._leaving

    # --- in the host ---

    def set_up(self, item: pytest.Item, argname: str) -> float:
        """Set up all wide fixtures of `item`, and `argname`, until one raises.

        What was raised is remembered by pytest, and raised again in the child that asks next.

        :return: seconds it took.
        :raises pytest.exit.Exception, KeyboardInterrupt: to be passed on.
        """
        names = pytest_fixtures.wide_fixtures(item)
        if argname not in (*names, _COLLECTORS):
            names.append(argname)

        def work() -> None:
            with self.watch.fixtures_and_collectors(item):
                self._set_up_collectors(item)
                pytest_fixtures.request_fixtures(item, names)

        call = self._phases.run("setup", item, work)
        if call.excinfo is not None:
            if pytest_fixtures.raised_in_teardown_of_fixture(call.excinfo.value):
                self._failed = item, call.excinfo.value
            if self._gpu_failures is not None:
                self._gpu_failures.met(item, call.excinfo.value, _sections(item))
        # The child has them, too, and reports them if it lives to do so.
        self._relay.send(WideOutput(_sections(item)))
        return float(call.duration)

    def _set_up_collectors(self, item: pytest.Item) -> None:
        missing = pytest_fixtures.missing_collector(item)
        if missing is None:
            pytest_fixtures.set_up_collectors(item)
            return
        label = f"collector {missing.nodeid}"
        self._relay.send(WideSetup(missing.nodeid, label, time.time()))
        try:
            pytest_fixtures.set_up_collectors(item)
        finally:
            self._relay.send(WideSetupDone(time.time()))

    def tear_down(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        """Tear down what `nextitem` does not share; errors are reported on `item`.

        :return: whether there was anything to do.
        """
        if not pytest_fixtures.needs_tear_down(self._session, nextitem):
            pytest_fixtures.tear_down(self._session, nextitem)
            return False
        pytest_fixtures.forget_request(item)
        pytest_fixtures.expect_log_records(item)
        call = self._phases.run(
            "teardown", item, lambda: pytest_fixtures.tear_down(self._session, nextitem)
        )
        made = self._phases.report_teardown(item, call)
        report = None
        if made is not None and made.failed:
            report = carriable(pytest_reports.report_to_data(item.config, made))
        self._relay.send(WideTeardown(call.duration, _sections(item), report, call.start))
        self._active = [each for each in self._active if each.cached_result is not None]
        return True


def _is_wide(request: Any) -> bool:
    # Outside of a class, pytest takes a class-scoped fixture for one of the test function.
    return request.scope != "function" and not isinstance(request.node, pytest.Item)


def _sections(item: pytest.Item) -> tuple[tuple[str, str], ...]:
    """What was captured for `item`, as a report names it."""
    return tuple(
        (f"Captured {key} {when}", carriable(content))
        for when, key, content in item._report_sections
    )


def _captured_so_far() -> tuple[tuple[str, str], ...]:
    """What is captured of the phase in whose midst this is, as a report will name it."""
    flush()
    return tuple(
        (f"Captured {name} setup", read_ends(descriptor).decode("utf-8", "replace"))
        for name, descriptor in (("stdout", slots.out), ("stderr", slots.err))
    )


class _Collectors:
    """The plugin that has a child leave before pytest sets up what is above the test."""

    def __init__(self, fixtures: WideFixtures) -> None:
        self._fixtures = fixtures

    # Not tryfirst: by now marks and most hooks that skip tests have had their say.
    @pytest.hookimpl
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._fixtures.raise_failed_teardown(item)
        self._fixtures.see_to_collectors(item)
