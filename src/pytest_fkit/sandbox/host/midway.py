"""A test that its host begins, through all hooks, and a child goes on with.

So the wide fixtures that it is the first to need are set up where plain pytest sets them up. The
child is forked when they are there, before the first fixture of the test's own. Its host stays
where it is until the child has ended, and gets out of the hooks then.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, cast

import pytest

from ...compat import pytest_fixtures
from ...own import own_builtins, signal, suppress
from ..process.steps import Passage
from ..process.wide_fixtures import WideFixtures
from .children import Children, Waiting
from .unwinding import Begun

own_builtins(globals())

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


class Surroundings:
    """What the host does for it, in the midst of the hooks.

    :param settle: fixtures are set up, what they started is to be known before a test starts
        anything.
    :param watch: sees a child to its end; what it left for is a fixture's name, None if it ran the
        test.
    :param resume: a child left for a fixture, which is set up next.
    :param stay: there will be no child: the host runs the test itself, because of this.
    """

    def __init__(
        self,
        settle: Callable[[pytest.Item], None],
        watch: Callable[[Waiting, tuple[str, ...]], tuple[str | None, str]],
        resume: Callable[[], None],
        stay: Callable[[str], None],
    ) -> None:
        self.settle = settle
        self.watch = watch
        self.resume = resume
        self.stay = stay


class Midway:
    """Of one test, which is its host's until it is forked.

    :param wanted: wide fixtures that a child asked for before.
    """

    def __init__(
        self,
        item: pytest.Item,
        nextitem: pytest.Item | None,
        fixtures: WideFixtures,
        children: Children,
        surroundings: Surroundings,
        wanted: tuple[str, ...],
    ) -> None:
        self._item = item
        self._nextitem = nextitem
        self._fixtures = fixtures
        self._children = children
        self._around = surroundings
        self._wanted = wanted
        self._begun = Begun(item)
        self._filled = False
        self.passage = Passage()
        self.left = False
        """Whether a child ran the test."""
        self.trouble: OSError | MemoryError | None = None
        """What kept a child from being forked."""

    def begin(self) -> None:
        """The host is about to run the item."""
        self._begun.watch()
        pytest_fixtures.replace_filling(self._item, self._fill)
        self._fixtures.begin(self._item, self._fill_late)

    def end(self) -> None:
        """It is out of the item again."""
        self._begun.unwatch()
        pytest_fixtures.keep_filling(self._item)
        if not self._filled:  # it was skipped, say
            self._fixtures.hooks_ran(self._item)
        self._fixtures.end()

    def _fill_late(self) -> None:
        """The item, or a plugin for it, asks for its fixtures in a way of its own."""
        if not self._filled:
            self._fill(lambda: None)

    def _fill(self, fill_all: Callable[[], None]) -> None:
        __tracebackhide__ = True
        if self._filled:
            fill_all()
            return
        self._filled = True
        failed = self._fixtures.set_up_first(self._item)
        for name in self._wanted if failed is None else ():
            self._fixtures.set_up_for_child(self._item, name)
        if self._fork():
            pytest_fixtures.take_off_stack(self._item.session, self._item)
            self._begun.leaving = True
            self._fixtures.leave_test(lambda: self._begun.tear_down(self._nextitem))
        if failed is not None:
            raise failed
        fill_all()

    def _fork(self) -> bool:
        """Have the test run by a child.

        :return: whether it was; False in the child, and where the host runs it itself.
        """
        while True:
            cause = self._fixtures.watch.cause or self._fixtures.watch.left_by_hooks
            if cause:
                self._around.stay(cause)
                return False
            self._around.settle(self._item)
            timers = [signal.setitimer(each, 0.0) for each in _TIMERS]
            numbers = _RandomNumbers()
            try:
                with self._children.statuses:
                    child = self._children.fork_midway(self.passage)
                    if child is None:
                        numbers.go_on()
                        self._enter_child(timers)
                        return False
                    self.left = True
                    name, unsafe = self._around.watch(child, self._fixtures.refused)
            except (OSError, MemoryError) as error:
                self.trouble = error
                return True
            if name is None:
                return True
            self.left = False
            for which, left in zip(_TIMERS, timers):
                signal.setitimer(which, *left)
            if unsafe:
                self._fixtures.blame(unsafe)
                self._around.stay(self._fixtures.watch.cause or unsafe)
                return False
            self._around.resume()
            self._fixtures.set_up_for_child(self._item, name)

    def _enter_child(self, timers: list[tuple[float, float]]) -> None:
        self._begun.unwatch()
        self._fixtures.enter_begun()
        for which, left in zip(_TIMERS, timers):
            if left[0]:
                signal.setitimer(which, *left)


class _RandomNumbers:
    """Those of Python's own generator, which it seeds anew in each forked process.

    A hook may have seeded it for the test.
    """

    def __init__(self) -> None:
        self._module = cast("Any", sys.modules.get("random"))
        with suppress(Exception):  # a suite may have replaced what is there
            self._state = self._module.getstate()

    def go_on(self) -> None:
        """In the new process: the next number is that which came next above it."""
        with suppress(Exception):
            self._module.setstate(self._state)
