"""How a host has a test run: in a child, which may go on with what the host began, or in itself."""

from __future__ import annotations

from typing import Any, Callable, Generator, NoReturn

import pytest

from ...compat import pytest_fixtures
from ...config.settings import measures_usage
from ...own import os, own_builtins
from ...protocol.descriptors import Files, Pipes, read_from
from ...protocol.messages import (
    PATIENCE,
    Began,
    ChildExited,
    Completed,
    Forked,
    Go,
    Leaves,
    Ping,
    Run,
    SharedProcess,
    Used,
    UsedBefore,
    WideSetUp,
)
from ...protocol.plain_values import carriable
from ...protocol.wire import Unpacker
from ...system import limits
from ..child.child import IN_ORDER, STOPS, Child, run_protocol
from ..child.usage import Meter
from ..child.warmup import GAVE_BACK, Warmup
from ..process.progress import LastWord, Tally
from ..process.relay import DEAF, LEAVES
from ..process.steps import RunItem, Step
from ..process.test_process import TestProcess
from .children import Children, Waiting
from .midway import Midway, Surroundings

own_builtins(globals())

_GAVE_BACK = Leaves("")
"""Of a child that did not get its order any more."""


class Forking:
    """Of one host.

    :param item_at: the item at a position, None where there is none.
    :param exit_: ends this process with a status.
    """

    def __init__(
        self,
        session: pytest.Session,
        process: TestProcess,
        item_at: Callable[[int], pytest.Item | None],
        exit_: Callable[[int], NoReturn],
    ) -> None:
        self._session = session
        self._item = item_at
        self._exit = exit_
        self._relay = process.relay
        self._fixtures = process.fixtures
        self._measuring = process.measuring
        self._states = process.states
        self._session_end = process.session_end
        self._reruns = process.reruns
        self._measures = measures_usage(session.config)
        self._child = Child(session, process, item_at)
        self._children = Children(
            self._child, self._measures, Warmup(session.config, process.relay)
        )
        self.ran_tests = False
        """Whether this process ran a test itself; it forks no other then."""
        self.wary = False
        """Whether hooks left in it what keeps it from forking."""
        self.limited = False
        """Whether a limit kept a child from its work."""

    def prepare(self, sets: tuple[Files, ...], words: tuple[LastWord, ...]) -> None:
        """In a forked host, before it serves: there will be children.

        :param sets: their files, none where there will be no children.
        :param words: their last ones.
        """
        self._children.begin(sets, words)

    def serve(self, link: Pipes) -> None:
        """From now on.

        :param link: to the keeper.
        """
        self._link = self._children.hosts_link = link
        self.failures = self._child.failures = Tally()

    def let_go(self) -> None:
        """Have no process below the host; see :meth:`.Children.let_go`."""
        self._children.let_go()

    def run(
        self, run: Run, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[Step, Any, None]:
        go = Go(
            run.position, run.next_position, self._failed_before(run), run.location,
            refused=(), wide_setup_seconds=0.0, attempts=run.attempts,
            suite_reruns=run.suite_reruns,
        )  # fmt: skip
        if self._fixtures.wants(item) and self._fixtures.begins(item):
            yield from self._begin(go, item, nextitem, ())
            return
        while True:
            left = yield from self._run_child(go, self._forks_ahead(run, nextitem))
            if left is None:
                return
            self._children.let_go()
            if left.unsafe:
                self._fixtures.blame(left.unsafe)
                self._link.send(Began("test"))
                yield from self.run_here(item, nextitem, go.wide_setup_seconds, left.unsafe)
                return
            if self._fixtures.begins(item):
                yield from self._begin(go, item, nextitem, (left.argname,))
                return
            seconds = self._set_up(item, left.argname)
            go = go._replace(
                refused=(*go.refused, left.argname),
                wide_setup_seconds=go.wide_setup_seconds + seconds,
            )
            if self._fixtures.watch.cause:
                self._link.send(Began("test"))
                yield from self.run_here(item, nextitem, go.wide_setup_seconds)
                return

    def _begin(
        self, go: Go, item: pytest.Item, nextitem: pytest.Item | None, wanted: tuple[str, ...]
    ) -> Generator[Step, Any, None]:
        """Run the test, in a child from where its own part begins.

        :param wanted: wide fixtures for which a child has left before.
        """
        self._children.let_go()
        self._link.send(Began("setup"))
        self._session.testsfailed = go.tests_failed
        pytest_fixtures.set_location(item, go.location)
        if self._reruns is not None:
            self._reruns.begin(go.attempts, go.suite_reruns)
        self._relay.open()
        meter = Meter() if self._measures else None
        around = Surroundings(
            settle=self._settle,
            watch=lambda child, refused: self._see_through(child, go._replace(refused=refused)),
            resume=self._resume,
            stay=lambda cause: self._stay(cause, meter),
        )
        midway = Midway(item, nextitem, self._fixtures, self._children, around, wanted)
        midway.begin()
        raised = yield RunItem(item, nextitem, midway.passage)
        midway.end()
        if midway.trouble is not None:
            raise midway.trouble
        if midway.left:
            self._states.forget()  # the child said it
            return
        if raised is not None:
            self._relay.interrupt(raised)
        if self._fixtures.watch.left_by_hooks:
            self.ran_tests = self.wary = True
        self._conclude(item, meter)

    def _settle(self, item: pytest.Item) -> None:
        if not self._note_set_up():
            self._exit(DEAF if self._link.trouble else 0)
        self._measuring.send()
        self._states.send_grown()
        self._measuring.resume(item)

    def _resume(self) -> None:
        self._link.send(Began("setup"))
        self._relay.announce()  # the reports of a test that starts again are discarded

    def _stay(self, cause: str, meter: Meter | None) -> None:
        self.ran_tests = True
        self._children.end()
        self._relay.send(SharedProcess(carriable(cause)))
        if meter is not None:
            self._relay.send(UsedBefore(tuple(meter.before)))
        self._link.send(Began("test"))

    def _see_through(self, child: Waiting, go: Go) -> tuple[str | None, str]:
        self._tell_of(child, go)
        left = self._see_end(child)
        return (None, "") if left is None else (left.argname, left.unsafe)

    def fork_next(self, run: Run) -> Generator[Step, Any, None]:
        """Fork the next test's child while the keeper sees to what the last one left."""
        if self.ran_tests or not self._children.may_fork_next:
            return
        if self._forks_ahead(run, self._item(run.next_position)):
            yield from self._children.fork_ahead()

    def _forks_ahead(self, run: Run, nextitem: pytest.Item | None) -> bool:
        """Whether a child that is forked while this test runs can run the next one."""
        return (
            nextitem is not None
            and self._children.allow_ahead
            and not run.next_share
            and run.next_environ == run.environ
            # The memory that the two share would be counted wrong.
            and not run.memory_limit
            # Otherwise something is to be torn down here between the two, or set up.
            and pytest_fixtures.shares_setup(self._session, nextitem)
            and not self._fixtures.wants(nextitem)
        )

    def _set_up(self, item: pytest.Item, argname: str) -> float:
        self._link.send(Began("setup"))
        seconds = self._fixtures.set_up(item, argname)
        if not self._note_set_up():
            raise ConnectionError("the keeper is gone")
        self._measuring.send()
        self._states.send_of_wide()
        return seconds

    def _note_set_up(self) -> bool:
        """Tell that wide fixtures are set up, before a child is forked; whether it may be.

        What they started is to be known before a test can start anything.
        """
        self._session_end.settle()
        self._link.send(WideSetUp())
        while not self._link.is_readable(PATIENCE):
            self._link.send(Ping())  # by which the keeper sees it if the message before is lost
        return self._link.receive() is not None

    def run_here(
        self,
        item: pytest.Item,
        nextitem: pytest.Item | None,
        wide_setup_seconds: float,
        cause: str = "",
    ) -> Generator[Step, Any, None]:
        """Run the test in this process, which forks no test from now on.

        :param cause: what keeps the test from being forked, where no wide fixture is to blame.
        """
        self.ran_tests = True
        self._children.end()
        self._relay.open(wide_setup_seconds)
        cause = self._fixtures.watch.cause or cause
        if cause:
            self._relay.send(SharedProcess(carriable(cause)))
        meter = Meter() if self._measures else None
        if meter is not None:
            self._relay.send(UsedBefore(tuple(meter.before)))
        yield from run_protocol(item, nextitem, self._relay)
        self._conclude(item, meter)

    def _conclude(self, item: pytest.Item, meter: Meter | None) -> None:
        if meter is not None:
            self._relay.send(Used(os.getpid(), tuple(meter.read())))
        self._measuring.send()
        self._states.send()
        self._relay.send(Completed(by_pytest=not pytest_fixtures.others_run(item)))

    def _run_child(self, go: Go, ahead: bool) -> Generator[Step, Any, Leaves | None]:
        """Run one child to its end.

        :param ahead: whether the next test can be run in a child that is forked in the meantime.
        :return: what it left for, None if it ran the test.
        """
        left: Leaves | None = _GAVE_BACK
        while left is _GAVE_BACK:
            with self._children.statuses:
                left = yield from self._watch_child(go, ahead)
        return left

    def _watch_child(self, go: Go, ahead: bool) -> Generator[Step, Any, Leaves | None]:
        child = yield from self._children.next()
        self._tell_of(child, go)
        if ahead:
            yield from self._children.fork_ahead(child)
        return self._see_end(child)

    def _tell_of(self, child: Waiting, go: Go) -> None:
        """Tell the keeper of a child, and the child what it is to do."""
        self._link.send(Forked(child.pid, self._relay.written(), child.number))
        try:
            child.pipes.send(go)
        except OSError:  # it is dead, which will be seen
            return

    def _see_end(self, child: Waiting) -> Leaves | None:
        try:
            gone = self._children.await_end(child)
            refused = gone.ours and limits.refusal_of(gone.status >> 8)
            self.limited = self.limited or bool(refused)
            left = _left_for(self._children.files(child), gone.status)
        finally:
            self._children.release(child)
        stops = gone.ours and gone.status == STOPS << 8
        if gone.status in IN_ORDER:
            self._session.testsfailed = self.failures.get()
        exited = ChildExited(
            child.pid, gone.status, left is not None, stops, gone.used, gone.early, gone.ours
        )
        self._link.hold(exited)
        return left

    def _failed_before(self, run: Run) -> int:
        """How many tests have failed; the order may be older than a failure here."""
        return max(run.tests_failed, self._session.testsfailed)


def _left_for(files: Files, status: int) -> Leaves | None:
    if status == GAVE_BACK << 8 and not os.fstat(files.events).st_size:
        return _GAVE_BACK
    if status != LEAVES << 8:
        return None
    messages = Unpacker().feed(read_from(files.events))
    last = messages[-1] if messages else None
    return last if isinstance(last, Leaves) else None
