"""Wide fixtures that a host sets up for a test, and for the tests after it."""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from ...compat import pytest_fixtures
from ...own import contextmanager, own_builtins

own_builtins(globals())


class _NeedsTheTest(BaseException):
    """Unwinds the setup of wide fixtures that need one that lives no longer than the test.

    That is one that the test has parametrized with the scope function.
    """


class Outliving:
    """What the host tried to set up for one test and can't keep for others."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        """Names of the wide fixtures that a child sets up if they are missing."""
        self._raised: list[pytest.FixtureDef[object]] = []
        self._is_on = False

    @contextmanager
    def setup(self) -> Iterator[None]:
        """Around the setup of wide fixtures: ends at the first that can't outlive the test."""
        self._raised = []
        self._is_on = True
        try:
            yield
        except _NeedsTheTest:
            self.forget_raised()
        finally:
            self._is_on = False

    def check(self, fixturedef: pytest.FixtureDef[object], request: Any) -> None:
        """Before the setup of a fixture of the test's own: unwind if wide ones are to need it."""
        dependents = pytest_fixtures.wide_dependents(request) if self._is_on else []
        if dependents:
            self.refused += dependents
            pytest_fixtures.forget_setup(fixturedef)
            raise _NeedsTheTest

    def has_raised(self, fixturedef: pytest.FixtureDef[object]) -> None:
        """Note a wide fixture that did not come up."""
        self._raised.append(fixturedef)

    def forget_raised(self) -> None:
        """Let the next request try again those that raised."""
        for fixturedef in self._raised:
            pytest_fixtures.forget_setup(fixturedef)
