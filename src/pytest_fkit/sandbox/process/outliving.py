"""Wide fixtures that a host sets up for a test, and for the tests after it."""

from __future__ import annotations

from typing import Any, Iterator, Tuple

import pytest

from ...compat import pytest_fixtures
from ...own import contextmanager, own_builtins
from ...system.stack_texts import entries
from .progress import Tally

own_builtins(globals())

_Raised = Tuple[str, Any, Tuple[Any, ...]]
"""A wide fixture that did not come up: its key, its definition, and what it raised where."""


class _NeedsTheTest(BaseException):
    """Unwinds the setup of wide fixtures that need one that lives no longer than the test.

    That is one that the test has parametrized with the scope function.
    """


class Outliving:
    """What the host tried to set up for a test and can't keep for others."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        """Names of the wide fixtures that a child sets up if they are missing."""
        self._raised: list[_Raised] = []
        self._forgotten: list[_Raised] = []
        self._final: list[_Raised] = []
        self._confirmed = Tally()  # how many of those forgotten have raised the same in a child
        self._is_on = False

    def begin(self) -> None:
        """Before the host tries for another test."""
        self.refused = []
        self._forgotten = []
        self._confirmed.set(0)

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

    def has_raised(
        self, key: str, fixturedef: pytest.FixtureDef[object], error: BaseException, child: bool
    ) -> None:
        """Note a wide fixture that did not come up.

        :param key: of the fixture with its parameter and the node whose setup it is part of.
        :param child: whether this is a child. It tells the host if a fixture that the host forgot
            raises the same where the test requests it.
        """
        raised = (key, fixturedef, _place(error))
        if not child:
            self._raised.append(raised)
            return
        number = self._confirmed.get()
        if self._forgotten[number : number + 1] == [raised]:
            self._confirmed.set(number + 1)

    def child_ended(self) -> None:
        """Learn of which fixtures the next failure is final: pytest raises it for other tests."""
        self._final += self._forgotten[: self._confirmed.get()]
        self.begin()

    def forget_raised(self) -> None:
        """Let the next request try again those that raised, but for failures that are final."""
        raised, self._raised = self._raised, []
        self._forgotten = [each for each in raised if each not in self._final]
        for _, fixturedef, _ in self._forgotten:
            pytest_fixtures.forget_setup(fixturedef)


def _place(error: BaseException) -> tuple[Any, ...]:
    """What was raised where, from this package's hook on: equal for two of one cause."""
    calls = [(each.tb_frame.f_code, each.tb_lineno) for each in entries(error.__traceback__)]
    return (type(error), *calls)
