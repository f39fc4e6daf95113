"""Detects what fixtures, collectors and hooks leave in a host that does not survive a fork."""

from __future__ import annotations

from typing import Iterator, Sequence

import pytest

from ...compat import pytest_fixtures
from ...own import contextmanager, own_builtins
from ...system import holdings
from ...system.paths import below
from .copies import forbidden, fork

own_builtins(globals())

HOOKS = "hooks"
"""Key of :class:`.messages.Broken` where hooks leave such things in a host."""

_PYTESTS = pytest.fixture.__code__.co_filename[: -len("fixtures.py")]


class ForkWatch:
    """Compares what a host holds before and after code of the suite, and records the cause.

    :param on: whether to compare at all.
    """

    def __init__(self, session: pytest.Session, on: bool) -> None:
        self._session = session
        self._rootdir = str(session.config.rootpath)
        self._held: holdings.Holdings | None = None
        self._compares = False
        self._causes: dict[pytest.FixtureDef[object] | pytest.Collector, str] = {}
        self.on = on
        self.left_by_hooks = ""
        """What hooks of the running test left in the host, or ""."""

    def begin(self) -> None:
        """Before the host begins a test: record what the host holds."""
        self.left_by_hooks = ""
        self._held = self._take() if self.on else None

    def end(self) -> None:
        """In the host after the test, or in the child that continues it: stop comparing."""
        self._held = None

    def hooks_ran(self, item: pytest.Item, set_up: bool) -> None:
        """Compare with the start of the test, and blame the hooks or the collectors.

        :param set_up: whether a collector was set up meanwhile, which is blamed then.
        """
        if self._held is None:
            return
        if set_up:
            self._compare_after_collectors(item)
            return
        found = self._new_holdings(self._held)
        if found:
            self.left_by_hooks = f"hooks around {item.nodeid}: {found}"

    @contextmanager
    def fixtures(self) -> Iterator[None]:
        """Within the block, compare after each fixture of a test that the host has begun."""
        self._compares = self._held is not None
        try:
            yield
        finally:
            self._compares = False

    @contextmanager
    def fixtures_and_collectors(self, item: pytest.Item) -> Iterator[None]:
        """Within the block, compare after each fixture set up outside of a test, and at the end."""
        if not self.on:
            yield
            return
        self._held = self._take()
        self._compares = self._held is not None
        try:
            yield
        finally:
            self._compares = False
            if self._held is not None:
                self._compare_after_collectors(item)

    def fixture_is_set_up(self, fixturedef: pytest.FixtureDef[object], label: str) -> None:
        """Compare, and blame the fixture for what is new."""
        if self._compares:
            self._compare_after(fixturedef, f"{label}{self._location(fixturedef.func)}")

    @property
    def cause(self) -> str:
        """The first fixture or collector still set up that left something, and what; or ""."""
        for source, cause in list(self._causes.items()):
            if pytest_fixtures.is_set_up(self._session, source):
                return cause
            del self._causes[source]
        return ""

    def blame(self, active: Sequence[pytest.FixtureDef[object]], found: str) -> None:
        """Blame the fixture set up last for what a child found, and its host must have left."""
        up = [each for each in active if pytest_fixtures.is_set_up(self._session, each)]
        if up:
            fixturedef = up[-1]
            label = f"{fixturedef.scope}-scoped fixture {fixturedef.argname!r}"
            self._causes[fixturedef] = f"{label}{self._location(fixturedef.func)}: {found}"

    def _compare_after_collectors(self, item: pytest.Item) -> None:
        assert item.parent is not None
        self._compare_after(item.parent, f"setup of {item.parent.nodeid}")

    def _compare_after(
        self, source: pytest.FixtureDef[object] | pytest.Collector, label: str
    ) -> None:
        """Compare with the last time, and record what is new.

        :param source: the fixture or collector to blame.
        """
        assert self._held is not None
        found = self._new_holdings(self._held)
        if found:
            self._causes[source] = f"{label}: {found}"

    def _take(self) -> holdings.Holdings | None:
        """What the process holds; None if /proc is out of reach, as after a chroot(2)."""
        try:
            return holdings.take()
        except OSError:
            return None

    def _new_holdings(self, before: holdings.Holdings) -> str:
        try:
            now = holdings.take_forkable(fork, before)
        except OSError:  # as in _take
            return ""
        except Exception as error:  # noqa: BLE001 (an audit hook, which stays, may raise anything)
            return forbidden(error)
        self._held = now
        return ", ".join(now.beyond(before))

    def _location(self, function: object) -> str:
        code = getattr(function, "__code__", None)
        if code is None:
            return ""
        path: str = code.co_filename
        if path.startswith(_PYTESTS):  # it calls setup_module, setUpClass and the like
            return ""
        return f" ({below(path, self._rootdir) or path}:{code.co_firstlineno})"
