"""What keeps a host from forking tests: what fixtures, collectors and hooks left in it."""

from __future__ import annotations

from typing import Any, Iterator, Sequence

import pytest

from ...compat import pytest_fixtures
from ...own import contextmanager, own_builtins
from ...system import holdings
from ...system.paths import below
from .copies import fork

own_builtins(globals())

HOOKS = "hooks"
"""Key of what is broken where hooks leave in a host what keeps it from forking tests."""


class ForkWatch:
    """Of one test process.

    :param on: whether to look.
    """

    def __init__(self, session: pytest.Session, on: bool) -> None:
        self._session = session
        self._rootdir = str(session.config.rootpath)
        self._held: holdings.Holdings | None = None
        self._looks = False
        self._causes: dict[Any, str] = {}
        self.on = on
        self.left_by_hooks = ""
        """What hooks left that began the running test, "" for nothing."""

    def begin(self) -> None:
        """The host is about to begin a test."""
        self.left_by_hooks = ""
        self._held = holdings.take() if self.on else None

    def end(self) -> None:
        """It is through with it; or this is the child that goes on with it."""
        self._held = None

    def hooks_ran(self, item: pytest.Item, set_up: bool) -> None:
        """Compare with when the test began; what there is now is to blame on what ran before.

        :param set_up: whether that was the setup of a collector.
        """
        if self._held is None:
            return
        if set_up:
            self._note_collectors(item)
            return
        found = self._look(self._held)
        if found:
            self.left_by_hooks = f"hooks around {item.nodeid}: {found}"

    @contextmanager
    def fixtures(self) -> Iterator[None]:
        """Within the block fixtures are set up in the midst of a test that the host began."""
        self._looks = self._held is not None
        try:
            yield
        finally:
            self._looks = False

    @contextmanager
    def fixtures_and_collectors(self, item: pytest.Item) -> Iterator[None]:
        """Within the block fixtures and collectors are set up outside of any test."""
        if not self.on:
            yield
            return
        self._held = holdings.take()
        self._looks = True
        try:
            yield
        finally:
            self._looks = False
            self._note_collectors(item)

    def fixture_is_set_up(self, fixturedef: Any, label: str) -> None:
        """Look at what a fixture left."""
        if self._looks:
            self._note(fixturedef, f"{label}{self._place(fixturedef.func)}")

    @property
    def cause(self) -> str:
        """The fixture or collector that is still set up, and what it left, or ""."""
        for source, cause in list(self._causes.items()):
            if pytest_fixtures.is_set_up(self._session, source):
                return cause
            del self._causes[source]
        return ""

    def blame(self, active: Sequence[Any], found: str) -> None:
        """What a child found that the host must have left: put it down to the last fixture."""
        up = [each for each in active if pytest_fixtures.is_set_up(self._session, each)]
        if up:
            fixturedef = up[-1]
            label = f"{fixturedef.scope}-scoped fixture {fixturedef.argname!r}"
            self._causes[fixturedef] = f"{label}{self._place(fixturedef.func)}: {found}"

    def _note_collectors(self, item: pytest.Item) -> None:
        assert item.parent is not None
        self._note(item.parent, f"setup of {item.parent.nodeid}")

    def _note(self, source: Any, label: str) -> None:
        """Compare with the last time.

        :param source: what is to blame, a fixture or a collector.
        """
        assert self._held is not None
        found = self._look(self._held)
        if found:
            self._causes[source] = f"{label}: {found}"

    def _look(self, before: holdings.Holdings) -> str:
        now = holdings.take_forkable(fork, before)
        self._held = now
        return ", ".join(now.beyond(before))

    def _place(self, function: Any) -> str:
        code = getattr(function, "__code__", None)
        if code is None:
            return ""
        path: str = code.co_filename
        return f" ({below(path, self._rootdir) or path}:{code.co_firstlineno})"
