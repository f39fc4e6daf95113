"""A test that its host begins, through all hooks, and that a child continues.

So the wide fixtures that it is the first to need are set up where plain pytest sets them up. The
child is forked after them, before the first fixture of the test's own. Its host waits there until
the child has ended, and unwinds the hooks then.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, cast

import pytest

from ...compat import pytest_fixtures
from ...own import own_builtins, signal, suppress
from ...protocol.event_file import Leaves
from ..process.copies import ForkForbiddenError
from ..process.seeds import plant
from ..process.steps import Handover
from ..process.wide_fixtures import WideFixtures
from .children import Children, ForkedChild
from .unwinding import BegunHooks

own_builtins(globals())

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


class HostCallbacks:
    """What the host does in the midst of the hooks.

    :param before_fork: reports that fixtures are set up, so that what they started is known before
        a test starts anything.
    :param watch_child: waits for a child's end; returns what it left for, None if it ran the test.
    :param resume_setup: called when a child left for a fixture, which is set up next.
    :param run_here: called when the host runs the test itself, with the reason.
    """

    def __init__(
        self,
        before_fork: Callable[[pytest.Item], None],
        watch_child: Callable[[ForkedChild, tuple[str, ...]], Leaves | None],
        resume_setup: Callable[[], None],
        run_here: Callable[[str], None],
    ) -> None:
        self.before_fork = before_fork
        self.watch_child = watch_child
        self.resume_setup = resume_setup
        self.run_here = run_here


class Midway:
    """Runs one test in the host up to the fork, and in the child from there.

    :param wanted: names of wide fixtures for which a child has left before.
    """

    def __init__(
        self,
        item: pytest.Item,
        nextitem: pytest.Item | None,
        fixtures: WideFixtures,
        children: Children,
        callbacks: HostCallbacks,
        wanted: tuple[str, ...],
    ) -> None:
        self._item = item
        self._nextitem = nextitem
        self._fixtures = fixtures
        self._children = children
        self._callbacks = callbacks
        self._wanted = wanted
        self._begun = BegunHooks(item)
        self._filled = False
        self.handover = Handover()
        self.child_ran_test = False
        """Whether a child, and not the host, ran the test."""
        self.fork_error: OSError | MemoryError | None = None
        """Why no child could be forked."""

    def begin(self) -> None:
        """Before the host runs the item."""
        self._begun.watch()
        pytest_fixtures.replace_filling(self._item, self._fill)
        self._fixtures.begin(self._item, self._ensure_filled)

    def end(self) -> None:
        """After the host has left the item."""
        self._begun.unwatch()
        pytest_fixtures.keep_filling(self._item)
        if not self._filled:  # the test was skipped, for example
            self._fixtures.hooks_ran(self._item)
        self._fixtures.end()

    def _ensure_filled(self) -> None:
        """Set up now, for an item or a plugin that requests fixtures in a way of its own."""
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
        """Fork children until one has run the test, or the host has to run it.

        :return: whether the test is over for this process; False where it runs now, in the child
            or in the host.
        """
        while True:
            cause = self._fixtures.watch.cause or self._fixtures.watch.left_by_hooks
            if cause:
                self._callbacks.run_here(cause)
                return False
            self._callbacks.before_fork(self._item)
            timers = [signal.setitimer(each, 0.0) for each in _TIMERS]
            numbers = _RandomNumbers()
            try:
                with self._children.statuses:
                    child = self._children.fork_midway(self.handover)
                    if child is None:
                        numbers.restore()
                        plant(self._item)
                        self._enter_child(timers)
                        return False
                    self.child_ran_test = True
                    left = self._callbacks.watch_child(child, self._fixtures.refused)
            except ForkForbiddenError as error:
                left = Leaves("", str(error.strerror))
            except (OSError, MemoryError) as error:
                self.fork_error = error
                return True
            if left is None:
                return True
            self.child_ran_test = False
            for which, timer in zip(_TIMERS, timers):
                signal.setitimer(which, *timer)
            if left.unsafe:
                self._fixtures.blame(left.unsafe)
                self._callbacks.run_here(self._fixtures.watch.cause or left.unsafe)
                return False
            self._callbacks.resume_setup()
            self._fixtures.set_up_for_child(self._item, left.argname)

    def _enter_child(self, timers: list[tuple[float, float]]) -> None:
        self._begun.unwatch()
        self._fixtures.enter_forked_midway()
        for which, left in zip(_TIMERS, timers):
            if left[0]:
                signal.setitimer(which, *left)


class _RandomNumbers:
    """The state of the random module, which reseeds itself in each forked process.

    A hook may have seeded it for the test.
    """

    def __init__(self) -> None:
        self._module = cast("Any", sys.modules.get("random"))
        with suppress(Exception):  # a suite may have replaced what is there
            self._state = self._module.getstate()

    def restore(self) -> None:
        """In the new process: continue the sequence of the process above."""
        with suppress(Exception):
            self._module.setstate(self._state)
