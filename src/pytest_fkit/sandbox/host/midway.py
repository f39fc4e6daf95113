"""A test that its host begins, through all hooks, and that a child continues.

So the wide fixtures that it is the first to need are set up where plain pytest sets them up. The
child is forked after them, before the first fixture of the test's own. Its host waits there until
the child has ended, and unwinds the hooks then; at once where no code of others could tell, so that
the next child can be forked meanwhile.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, cast

import pytest

from ...compat import pytest_fixtures, pytest_hooks
from ...named_tuple import NamedTuple
from ...own import own_builtins, signal, suppress, time
from ...protocol.event_file import Leaves
from ..process.copies import ForkForbiddenError
from ..process.steps import Handover
from ..process.test_process import plant
from ..process.wide_fixtures import WideFixtures
from .children import Children, ForkedChild
from .unwinding import BegunHooks

own_builtins(globals())

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


class HostCallbacks(NamedTuple):
    """What the host does in the midst of the hooks.

    :param before_fork: reports that fixtures are set up, so that what they started is known before
        a test starts anything.
    :param start_child: gives a child its order, with the wide fixtures that it may not leave for.
    :param await_child: waits for a child's end; returns what it left for, None if it ran the test.
    :param resume_setup: called when a child left for a fixture, which is set up next.
    :param run_here: called when the host runs the test itself, with the reason.
    """

    before_fork: Callable[[pytest.Item], None]
    start_child: Callable[[ForkedChild, tuple[str, ...]], None]
    await_child: Callable[[ForkedChild], Leaves | None]
    resume_setup: Callable[[], None]
    run_here: Callable[[str], None]


class Midway:
    """Runs one test in the host up to the fork, and in the child from there.

    :param wanted: name of a wide fixture for which a child has left before.
    :param may_run_on: asked after a fork: whether this process may unwind the hooks before the
        child has ended.
    """

    def __init__(
        self,
        item: pytest.Item,
        nextitem: pytest.Item | None,
        fixtures: WideFixtures,
        children: Children,
        callbacks: HostCallbacks,
        wanted: str | None,
        may_run_on: Callable[[], bool],
    ) -> None:
        self._item = item
        self._nextitem = nextitem
        self._fixtures = fixtures
        self._children = children
        self._callbacks = callbacks
        self._wanted = wanted
        self._may_run_on = may_run_on
        self._begun = BegunHooks(item)
        self._filled = False
        self._began = 0.0
        self.handover = Handover()
        self.child_ran_test = False
        """Whether a child, and not the host, ran the test."""
        self.running: ForkedChild | None = None
        """The child, if it may still run the test when the host has left the item."""
        self.seconds = 0.0
        """From begin() to the fork of that child."""
        self.fork_error: OSError | MemoryError | None = None
        """Why no child could be forked."""

    def begin(self) -> None:
        """Before the host runs the item."""
        self._began = time.monotonic()
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

    def end_hooks(self) -> None:
        """After the teardown of wide fixtures that ended with the test."""
        self._begun.end_tear_down()

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
        if self._wanted is not None and failed is None:
            self._fixtures.set_up_for_child(self._item, self._wanted)
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
                    self._callbacks.start_child(child, self._fixtures.refused)
                    if self._runs_on():
                        self.running, self.seconds = child, time.monotonic() - self._began
                        return True
                    left = self._callbacks.await_child(child)
            except ForkForbiddenError as error:
                left = Leaves("", str(error.strerror))
            except (OSError, MemoryError) as error:
                self.fork_error = error
                return True
            if left is None:
                self._fixtures.child_ended()
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

    def _runs_on(self) -> bool:
        """Whether to unwind the hooks now, while the child runs the test.

        Not if code of others might undo here what the child still needs.
        """
        return (
            self._may_run_on()
            and not self._children.statuses.are_kept
            and not pytest_hooks.others_take_part(self._item)
        )

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
