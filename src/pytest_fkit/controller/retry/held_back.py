"""What is told of tests that share a process, held back until it is whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Iterable

from ...own import own_builtins
from ...protocol.border import ItemBegins, ItemComplete, ItemStarted, Told
from ...protocol.running_test import Whereabouts

own_builtins(globals())


@dataclass
class _Open:
    """A test that has begun.

    :param passed: whether some of it was told already, so that the rest is not held back.
    """

    told: list[Told] = field(default_factory=list)
    passed: bool = False


class HeldBack:
    """Has plugins hear of a test that shares a process when all is said of it.

    Until then its process may be some tests ahead of what its worker has said. If the worker dies
    the test has to be run again, and plugins are not to hear half of it before.

    :param whereabouts: those of a worker, None if nobody knows them.
    """

    def __init__(self, whereabouts: Callable[[Any], Whereabouts | None]) -> None:
        self._whereabouts = whereabouts
        self._open: dict[Any, _Open] = {}

    def pass_on(self, node: Any, told: Iterable[Told]) -> list[Told]:
        """What of this is to be told now."""
        whereabouts = self._whereabouts(node)
        if whereabouts is None:
            return list(told)
        now: list[Told] = []
        for each in told:
            if isinstance(each, ItemBegins):
                now += self.release(node)
                self._open[node] = _Open()
                now.append(each)
            elif node not in self._open:
                now.append(each)
            elif isinstance(each, ItemComplete):
                now += [*self.release(node), each]
            # Its process says where it is before it says anything else of the test.
            elif self._open[node].passed or whereabouts.running is None:
                now += [*self._open[node].told, each]
                self._open[node] = _Open(passed=True)
            else:
                self._open[node].told.append(each)
        return now

    def begun(self, node: Any) -> ItemStarted | None:
        """The start of the test that is held back, if there is one."""
        told = self._open[node].told if node in self._open else []
        return next((each for each in told if isinstance(each, ItemStarted)), None)

    def release(self, node: Any) -> list[Told]:
        """What was held back, which is told now or never."""
        return self._open.pop(node, _Open()).told
