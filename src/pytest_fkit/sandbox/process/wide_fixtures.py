"""Wide fixtures, of class, module, package or session scope, are set up once, in the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Generator, NoReturn

import pytest

from ...compat import pytest_fixtures, pytest_hooks, pytest_nodes, pytest_reports
from ...gpu.errors.failure import mark_event
from ...own import own_builtins, time
from ...protocol.event_file import WideOutput, WideSetup, WideSetupDone, WideTeardown
from .fork_watch import HOOKS, ForkWatch
from .outliving import Outliving
from .phases import Phases, captured_so_far, sections
from .relay import Relay

if TYPE_CHECKING:
    from .gpu_failures import GpuFailures

own_builtins(globals())

_COLLECTORS = ""


class LeaveForHost(BaseException):
    """Unwinds a setup: of a child that lacks a wide fixture, or of a host whose child ran the test.

    Not an Exception: fixtures may catch those.
    """

    def __init__(self, argname: str) -> None:
        super().__init__(argname)
        self.argname = argname


class WideFixtures:
    """Plugin of test processes: has wide fixtures set up in the host, once for all tests.

    :param broken: by key, the end of a process that a wide fixture killed in its setup.
    :param watch: whether to detect what wide fixtures leave that does not survive a fork.
    :param gpu_failures: classifies what fixtures raise, where somebody wants to know.
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
        self._active: list[pytest.FixtureDef[object]] = []
        self._dropped: list[pytest.FixtureDef[object]] = []
        self._hosts: dict[Any, object] = {}
        self._may_leave = False
        self._takes_requests = False
        self._owns_all = True
        self._leaving: LeaveForHost | None = None
        self._leave_at_once: Callable[[str], NoReturn] | None = None
        self._refused: set[str] = set()
        self._failed: tuple[pytest.Item, BaseException] | None = None
        self._begun: pytest.Item | None = None
        self._collector_set_up = False  # whether a collector is set up for the test begun
        self._ensure_filled: Callable[[], None] | None = None
        self._on_unwound: Callable[[], None] | None = None
        self._outliving = Outliving()
        self._phases = Phases(session)
        self.watch = ForkWatch(session, watch)
        session.config.pluginmanager.register(_Collectors(self), "fkit-collectors")

    # --- in the child ---

    def leave_to_host(self) -> None:
        """In a new child: leave the teardown of all but its own test to the host."""
        self._hosts = {}
        self._dropped = pytest_fixtures.leave_finalizers(
            self._session, self._active, self._begun, self._hosts
        )
        self._begun = None
        self._owns_all = False

    def enter_child(
        self, refused: set[str], item: pytest.Item, leave_at_once: Callable[[str], NoReturn]
    ) -> None:
        """In a child that has its order: leave for the host if a wide fixture is missing.

        :param refused: wide fixtures for which a child has left before; they are set up here.
        :param leave_at_once: ends the child without unwinding, given a wide fixture's name.
        """
        self._leave_at_once = leave_at_once
        self._refused = refused
        self._may_leave = True
        self._takes_requests = pytest_fixtures.takes_requests(item)

    @property
    def leaving(self) -> LeaveForHost | None:
        """Why this process has to leave the test, None if it has not."""
        return self._leaving

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[object], request: Any
    ) -> Generator[None, object, object]:
        """In a child, leave for a wide fixture that the host lacks; else announce its setup."""
        __tracebackhide__ = True
        if not pytest_fixtures.is_wide(request):
            self._leave_at_once = None  # from now on leaving has to tear this fixture down
            self._outliving.check(fixturedef, request)
            if self._ensure_filled is not None:
                self._leave_before(fixturedef, self._ensure_filled)
            return (yield)
        name = fixturedef.argname
        key = "::".join((str(fixturedef.baseid), name, str(request.param_index))) + (
            f"@{pytest_nodes.unique_id(request.node)}"
        )
        if key in self._broken:
            pytest_fixtures.forget_setup(fixturedef)  # its next parameter may be sound
            pytest.fail(self._broken[key], pytrace=False)
        may_leave = self._may_leave and self._takes_requests and name not in self._refused
        if may_leave and self._relay.phase == "setup":
            self._leave(name)
        label = f"{request.scope}-scoped fixture {name!r}"
        self._relay.send(WideSetup(key, label, time.time()))
        try:
            return (yield)
        except BaseException as error:
            self._outliving.has_raised(key, fixturedef, error, child=not self._owns_all)
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
        """Leave if :class:`LeaveForHost` was raised, even if a hook or fixture has caught it.

        Only the first setup of a test leaves: what a plugin that retries tests did before a later
        one can't be undone.
        """
        __tracebackhide__ = True
        if not self._owns_all and not self._may_leave:
            # The last teardown took off what the host has set up, and will tear down.
            pytest_fixtures.put_back(self._session, self._hosts)
        try:
            result = yield
            if self._ensure_filled is not None:
                self._ensure_filled()
        except BaseException:
            if self._leaving is None:
                raise
        finally:
            self._may_leave = False
        if self._leaving is not None:
            if self._on_unwound is not None:
                self._on_unwound()
            # pytest's runner lets this class pass, and would report any other.
            raise pytest.exit.Exception("leaves for its host") from None
        return result

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        """In a child, tear down all that it set up, even what the next test would share."""
        __tracebackhide__ = True
        try:
            return (yield)
        finally:
            if not self._owns_all:
                pytest_fixtures.tear_down(self._session, None)

    def _leave_before(self, fixture: pytest.FixtureDef[object], fill: Callable[[], None]) -> None:
        """Set up wide fixtures before a fixture of the test's own that a plugin requests early."""
        try:
            with pytest_fixtures.setup_not_begun(fixture):
                fill()
        except LeaveForHost:
            pytest_fixtures.forget_setup(fixture)
            raise

    def raise_failed_teardown(self, item: pytest.Item) -> None:
        """Raise, once, what the teardown of a wide fixture raised that `item` needs set up anew.

        As plain pytest does when a parametrized fixture gets its next parameter.
        """
        failed, self._failed = self._failed, None
        if failed is not None and failed[0] is item:
            raise failed[1]

    def require_collectors(self, item: pytest.Item) -> None:
        """Have a collector above `item` set up: by leaving in a child, at once in the host."""
        begun = self._begun is item
        if not begun and (not self._may_leave or _COLLECTORS in self._refused):
            return
        missing = pytest_fixtures.missing_collector(item)
        if missing is None:
            return
        key = pytest_nodes.unique_id(missing)
        if key in self._broken:
            pytest.fail(self._broken[key], pytrace=False)
        if not begun:
            self._leave(_COLLECTORS)
        self._set_up_collectors(item)

    def _leave(self, argname: str) -> None:
        if self._leave_at_once is not None:
            # Without unwinding, since hook wrappers may write files in their second halves.
            self._leave_at_once(argname)
        self._leaving = LeaveForHost(argname)
        self._relay.muted = True
        raise self._leaving

    # --- in a host that begins a test ---

    def can_begin(self, item: pytest.Item) -> bool:
        """Whether the host can begin a test that a child then continues."""
        return (
            HOOKS not in self._broken
            and pytest_fixtures.fills_in_setup(item)
            and not pytest_hooks.others_run(item)
            and not pytest_nodes.starts_threads(item)
        )

    def needs_setup(self, item: pytest.Item) -> bool:
        """Whether a wide fixture or a collector still has to be set up for a test."""
        missing = pytest_fixtures.missing_fixture(item) or pytest_fixtures.missing_collector(item)
        return missing is not None

    def begin(self, item: pytest.Item, ensure_filled: Callable[[], None]) -> None:
        """Before the host begins a test.

        :param ensure_filled: called before each fixture of the test's own, and after its setup.
        """
        self._begun = item
        self._collector_set_up = pytest_fixtures.missing_collector(item) is not None
        self._ensure_filled = ensure_filled
        self._outliving.begin()
        self.watch.begin()

    def end(self) -> None:
        """After the host has left the test."""
        self._begun = self._ensure_filled = self._on_unwound = self._leaving = None
        self._relay.muted = False
        self.watch.end()

    def enter_forked_midway(self) -> None:
        """In the child that continues the test."""
        self._ensure_filled = None
        self.watch.end()

    def hooks_ran(self, item: pytest.Item) -> None:
        """After the hooks, and maybe collectors, that precede the test's fixtures have run."""
        self.watch.hooks_ran(item, self._collector_set_up)

    def set_up_first(self, item: pytest.Item) -> BaseException | None:
        """Set up, amid the item's setup, the wide fixtures that precede those of its own.

        :return: the exception that one of them raised, or None.
        :raises pytest.exit.Exception, KeyboardInterrupt: to be passed on.
        """
        self.hooks_ran(item)
        with self.watch.fixtures():
            try:
                with self._outliving.setup():
                    for name in pytest_fixtures.first_wide_fixtures(item):
                        pytest_fixtures.fill_in(item, name)
            except (pytest.exit.Exception, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 (raised again in the child)
                if self._gpu_failures is not None:
                    self._gpu_failures.classify(item, error, captured_so_far())
                return error
        return None

    def set_up_for_child(self, item: pytest.Item, name: str) -> None:
        """Set up, at the same place, a wide fixture for which a child left amid its own fixtures.

        If that raises, perhaps for lack of those, forget it: the next child sets it up itself. If
        that raises the same, the next failure here is kept.
        """
        self._outliving.refused.append(name)
        with self.watch.fixtures():
            try:
                with self._outliving.setup():
                    pytest_fixtures.fill_in(item, name)
            except (pytest.exit.Exception, KeyboardInterrupt):
                raise
            except BaseException:  # noqa: BLE001 (the child will meet it)
                self._outliving.forget_raised()

    def child_ended(self) -> None:
        """After a child that ran the test, amid its setup."""
        self._outliving.child_ended()

    def blame(self, found: str) -> None:
        """Blame a fixture for what a child found, and this host must have left."""
        self.watch.blame(self._active, found)

    @property
    def refused(self) -> tuple[str, ...]:
        """The wide fixtures that children of this test set up themselves if they are missing."""
        return tuple(self._outliving.refused)

    def leave_test(self, on_unwound: Callable[[], None]) -> NoReturn:
        """In the host: leave a test that a child has run.

        :param on_unwound: called when the setup has been unwound.
        """
        self._relay.muted = True
        self._on_unwound = on_unwound
        self._leaving = LeaveForHost("")
        raise self._leaving

    # --- in the host ---

    def set_up(self, item: pytest.Item, argname: str) -> float:
        """Set up all wide fixtures of `item`, and `argname`, until one raises.

        pytest caches the exception, and raises it again in the child that requests the fixture.

        :return: seconds that it took.
        :raises pytest.exit.Exception, KeyboardInterrupt: to be passed on.
        """
        names = pytest_fixtures.wide_fixtures(item)
        if argname not in (*names, _COLLECTORS):
            names.append(argname)
        self._outliving.begin()

        def work() -> None:
            with self.watch.fixtures_and_collectors(item):
                self._set_up_collectors(item)
                for name in names:
                    with self._outliving.setup():
                        pytest_fixtures.request_fixtures(item, [name])

        call = self._phases.run("setup", item, work)
        if call.excinfo is not None:
            if pytest_fixtures.raised_in_teardown_of_fixture(call.excinfo.value):
                self._failed = item, call.excinfo.value
            if self._gpu_failures is not None:
                self._gpu_failures.classify(item, call.excinfo.value, sections(item))
        # The child inherits these sections, too, and reports them if it survives.
        self._relay.send(WideOutput(sections(item)))
        return float(call.duration)

    def _set_up_collectors(self, item: pytest.Item) -> None:
        missing = pytest_fixtures.missing_collector(item)
        if missing is None:
            pytest_fixtures.set_up_collectors(item)
            return
        key = pytest_nodes.unique_id(missing)
        self._relay.send(WideSetup(key, f"collector {key}", time.time()))
        try:
            pytest_fixtures.set_up_collectors(item)
        finally:
            self._relay.send(WideSetupDone(time.time()))

    def tear_down(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """Tear down what `nextitem` does not share, and report errors on `item`."""
        pytest_fixtures.forget_request(item)
        pytest_fixtures.expect_log_records(item)
        call = self._phases.run(
            "teardown", item, lambda: pytest_fixtures.tear_down(self._session, nextitem)
        )
        if call.excinfo is not None:
            pytest_reports.evaluate_xfail(item)
        made = self._phases.report_teardown(item, call)
        report = None
        if made is not None and made.outcome != "passed":
            report = pytest_reports.report_message(item.config, made)
        self._relay.send(WideTeardown(call.duration, sections(item), report, call.start))
        self._active = [each for each in self._active if each.cached_result is not None]


class _Collectors:
    """Plugin: has a child leave before pytest sets up the collectors above the test."""

    def __init__(self, fixtures: WideFixtures) -> None:
        self._fixtures = fixtures

    # Not tryfirst, so that marks and most hooks that skip tests come first.
    @pytest.hookimpl
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._fixtures.raise_failed_teardown(item)
        self._fixtures.require_collectors(item)
