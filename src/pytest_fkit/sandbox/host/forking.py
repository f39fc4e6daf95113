"""Runs one test of a host: in a child, in a child forked midway, or in the host itself."""

from __future__ import annotations

from typing import Callable, NoReturn

import pytest

from ...compat import pytest_fixtures, pytest_hooks, pytest_nodes
from ...config.settings import measures_usage
from ...own import os, own_builtins
from ...protocol.channels import Pipes
from ...protocol.descriptors import Files, read_from
from ...protocol.event_file import Completed, EndError, Leaves, SharedProcess, Used, UsedBefore
from ...protocol.messages import PATIENCE, Began, Forked, Go, Ping, Run, WideReady
from ...protocol.plain_values import carriable
from ...protocol.wire import Unpacker
from ...system import limits
from ...system.stack_texts import stack_text
from ..child.child import IN_ORDER, Child, run_protocol
from ..child.usage import Meter
from ..child.warmup import GAVE_BACK, Warmup
from ..process.copies import ForkForbiddenError
from ..process.progress import Tally
from ..process.relay import DEAF, FAILED, LEAVES
from ..process.steps import RunItem, Steps
from ..process.test_process import SEED, TestProcess, plant
from .children import Children, ForkedChild
from .midway import HostCallbacks, Midway

own_builtins(globals())

_SUSPICIOUS = 2
"""Children in a row: one may have broken pytest by itself; wide fixtures are not set up again
without need.
"""

_NO_ORDER = Leaves("")
"""Stands for a child that exited before its order came, to give GPU memory back."""


class Forking:
    """Runs the tests of one host, each in a child if possible.

    :param item_at: returns the item at a position, None where there is none.
    :param exit_: ends this process with a status.
    """

    def __init__(
        self,
        process: TestProcess,
        item_at: Callable[[int], pytest.Item | None],
        exit_: Callable[[int], NoReturn],
    ) -> None:
        self._process = process
        self._item = item_at
        self._exit = exit_
        config = process.session.config
        self._measures = measures_usage(config)
        self._child = Child(process, item_at)
        warmup = Warmup(config, process.relay)
        self.children = Children(self._child, self._measures, warmup, self._report_end_error)
        self.ran_tests = False
        """Whether this process has run a test itself; it forks no child after that."""
        self.hooks_prevent_forks = False
        """Whether hooks left something in this process that does not survive a fork."""
        self._begun: Midway | None = None
        self.hit_limit = False
        """Whether a limit of the machine kept a child from running its test."""
        self._failed_in_a_row = 0

    def serve(self, link: Pipes) -> None:
        """Set the link to the keeper, before the first test."""
        self._link = self.children.hosts_link = link
        self.failures = self._child.failures = Tally()

    def _report_end_error(self, error: Exception) -> None:
        self._process.relay.send(EndError(carriable(stack_text(error))))

    def run(self, run: Run, item: pytest.Item, nextitem: pytest.Item | None) -> Steps[None]:
        """Run a test that has a process of its own: in a child, unless the host can't fork."""
        # The order may be older than the last failure here.
        failed = max(run.tests_failed, self._process.session.testsfailed)
        go = Go(run._replace(tests_failed=failed))
        begins = self._process.fixtures.needs_setup(item) and self._process.fixtures.can_begin(item)
        while True:
            if begins:
                go, left = yield from self._begin(go, item, nextitem)
                begins = False
            else:
                left = yield from self._run_child(go, self._forks_ahead(run, nextitem))
            if left is None:
                return
            self.children.end_all()
            if left.unsafe:
                self._process.fixtures.blame(left.unsafe)
                self._link.send(Began("test"))
                yield from self.run_here(item, nextitem, go.wide_setup_seconds, left.unsafe)
                return
            if self._process.fixtures.can_begin(item):
                yield from self._begin(go, item, nextitem, left.argname)
                return
            seconds = self._set_up(item, left.argname)
            go = go._replace(
                refused=(*go.refused, left.argname, *self._process.fixtures.refused),
                wide_setup_seconds=go.wide_setup_seconds + seconds,
            )
            if self._process.fixtures.watch.cause:
                self._link.send(Began("test"))
                yield from self.run_here(item, nextitem, go.wide_setup_seconds)
                return

    def _begin(
        self, go: Go, item: pytest.Item, nextitem: pytest.Item | None, wanted: str | None = None
    ) -> Steps[tuple[Go, Leaves | None]]:
        """Begin the test in the host, and fork a child where the test's own fixtures begin.

        :param wanted: name of a wide fixture for which a child has left before.
        :return: None if the test has run; else what its child left for, after the host had left
            the test as well, and the order for another.
        """
        self.end_hooks()  # of a first attempt
        self.children.end_all()
        self._link.send(Began("setup"))
        self._process.before_test(item, go.run)
        self._process.relay.open(go.wide_setup_seconds)
        meter = Meter() if self._measures else None
        callbacks = HostCallbacks(
            before_fork=self._before_fork,
            start_child=lambda child, refused: self._start_child(
                child, go._replace(refused=refused)
            ),
            await_child=self._await_end,
            resume_setup=self._resume_setup,
            run_here=lambda cause: self._run_rest_here(item, cause, meter),
        )
        midway = Midway(
            item, nextitem, self._process.fixtures, self.children, callbacks, wanted,
            lambda: wanted is None and self._may_run_on(go.run, nextitem),
        )  # fmt: skip
        self._begun = midway
        midway.begin()
        raised = yield RunItem(item, nextitem, midway.handover)
        midway.end()
        if midway.fork_error is not None:
            raise midway.fork_error
        if midway.child_ran_test:
            self._process.states.forget()  # the child sends it
            if midway.running is None:
                return go, None
            left = yield from self._run_on(midway.running, go.run, item, nextitem)
            return go._replace(wide_setup_seconds=midway.seconds), left
        if raised is not None:
            self._process.relay.interrupt(raised)
        if self._process.fixtures.watch.left_by_hooks:
            self.ran_tests = self.hooks_prevent_forks = True
        self._conclude(item, meter)
        return go, None

    def end_hooks(self) -> None:
        """After a test that this process may have begun, and the teardown of wide fixtures."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.end_hooks()
            self._process.states.forget()

    def _may_run_on(self, run: Run, nextitem: pytest.Item | None) -> bool:
        """Whether this process may leave a test that it has begun while the child runs it.

        Not while the child needs what pytest has captured here; nor without a gain.
        """
        return (
            nextitem is not None
            and self.children.working_set.allows_ahead
            and run.next_key == run.key
            and not run.memory_limit
            and not self._process.output.has_inherited()
        )

    def _run_on(
        self, child: ForkedChild, run: Run, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Steps[Leaves | None]:
        """Wait for a child of a test that this process has left; fork the next one meanwhile."""
        pytest_fixtures.forget_request(item)
        with self.children.statuses:
            if self._forks_ahead(run, nextitem):
                yield from self.children.fork_ahead(child)
            return self._await_end(child)

    def _before_fork(self, item: pytest.Item) -> None:
        if not self._report_set_up():
            self._exit(DEAF if self._link.trouble else 0)
        self._process.measuring.send()
        self._process.states.send_grown()
        self._process.measuring.resume(item)

    def _resume_setup(self) -> None:
        self._link.send(Began("setup"))
        self._process.relay.announce()  # again: what a child that leaves has reported is discarded

    def _run_rest_here(self, item: pytest.Item, cause: str, meter: Meter | None) -> None:
        self.ran_tests = True
        self.children.end()
        self._process.relay.send(SharedProcess(carriable(cause)))
        if meter is not None:
            self._process.relay.send(UsedBefore(tuple(meter.before)))
        self._link.send(Began("test"))
        plant(item)

    def fork_next(self, run: Run) -> Steps[None]:
        """Fork the next test's child while the keeper ends what the last test left running."""
        if self.ran_tests or not self.children.may_fork_next:
            return
        if self._forks_ahead(run, self._item(run.next_position)):
            yield from self.children.fork_ahead()

    def _forks_ahead(self, run: Run, nextitem: pytest.Item | None) -> bool:
        """Whether a child that is forked while this test runs can run the next test."""
        return (
            nextitem is not None
            and self.children.working_set.allows_ahead
            and run.next_key == run.key
            # Another child that shares pages would distort the running test's memory.
            and not run.memory_limit
            # Otherwise the host has to tear something down between the two, or set it up.
            and pytest_fixtures.shares_setup(self._process.session, nextitem)
            and not self._process.fixtures.needs_setup(nextitem)
        )

    def _set_up(self, item: pytest.Item, argname: str) -> float:
        self._link.send(Began("setup"))
        seconds = self._process.fixtures.set_up(item, argname)
        if not self._report_set_up():
            raise ConnectionError("the keeper is gone")
        self._process.measuring.send()
        self._process.states.send_of_wide()
        return seconds

    def _report_set_up(self) -> bool:
        """Report, before a fork, that wide fixtures are set up; wait for the keeper's answer.

        The keeper records what they started before a test can start anything.

        :return: False if the keeper is gone.
        """
        self._process.session_end.report_unraisable()
        self._link.send(WideReady())
        while not self._link.is_readable(PATIENCE):
            self._link.send(Ping())  # its number reveals to the keeper that WideReady was lost
        return self._link.receive() is not None

    def run_here(
        self,
        item: pytest.Item,
        nextitem: pytest.Item | None,
        wide_setup_seconds: float,
        cause: str = "",
    ) -> Steps[None]:
        """Run the test in this process, which forks no child from now on.

        :param wide_setup_seconds: time spent on wide fixtures for this test so far.
        :param cause: why it can't run in a child, where no wide fixture is to blame.
        """
        self.ran_tests = True
        self.children.end()
        self._process.relay.open(wide_setup_seconds)
        cause = self._process.fixtures.watch.cause or cause
        if cause:
            self._process.relay.send(SharedProcess(carriable(cause)))
        meter = Meter() if self._measures else None
        if meter is not None:
            self._process.relay.send(UsedBefore(tuple(meter.before)))
        if item.stash.get(SEED, -1) >= 0:
            pytest_nodes.forget_instance(item)
        plant(item)
        yield from run_protocol(item, nextitem, self._process.relay)
        self._conclude(item, meter)

    def _conclude(self, item: pytest.Item, meter: Meter | None) -> None:
        self._process.output.leave_test()
        if meter is not None:
            self._process.relay.send(Used(os.getpid(), tuple(meter.read())))
        self._process.measuring.send()
        self._process.states.send(item)
        self._process.relay.send(Completed(by_pytest=not pytest_hooks.others_run(item)))

    def _run_child(self, go: Go, ahead: bool) -> Steps[Leaves | None]:
        """Give a test to a child, and wait for the child's end.

        :param ahead: whether to fork the next test's child meanwhile.
        :return: what the child left for, None if it ran the test.
        """
        left: Leaves | None = _NO_ORDER
        try:
            while left is _NO_ORDER:
                with self.children.statuses:
                    left = yield from self._watch_child(go, ahead)
        except ForkForbiddenError as error:
            return Leaves("", str(error.strerror))
        return left

    def _watch_child(self, go: Go, ahead: bool) -> Steps[Leaves | None]:
        child = yield from self.children.next()
        self._start_child(child, go)
        if ahead:
            yield from self.children.fork_ahead(child)
        return self._await_end(child)

    def _start_child(self, child: ForkedChild, go: Go) -> None:
        """Announce a child to the keeper, and send the child its order."""
        self._link.send(Forked(child.pid, self._process.relay.size() or 0, child.number))
        try:
            child.pipes.send(go)
        except OSError:  # it is dead, as waiting for it will show
            return

    @property
    def is_doubtful(self) -> bool:
        """Whether pytest failed in so many children that this process may be to blame."""
        return self._failed_in_a_row >= _SUSPICIOUS

    def _await_end(self, child: ForkedChild) -> Leaves | None:
        try:
            exited = self.children.await_end(child)
            left = None
            failed = exited.ours and exited.status == FAILED << 8
            self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0
            if exited.status in IN_ORDER:
                self._process.session.testsfailed = self.failures.get()
            else:
                left = _read_leaves(self.children.files(child), exited.status)
                if exited.ours and limits.refusal_of(exited.status >> 8):
                    self.hit_limit = True
        finally:
            self.children.release(child)
        self._link.hold(exited._replace(leaves=left is not None))
        return left


def _read_leaves(files: Files, status: int) -> Leaves | None:
    if status == GAVE_BACK << 8 and not os.fstat(files.events).st_size:
        return _NO_ORDER
    if status != LEAVES << 8:
        return None
    messages = Unpacker().feed(read_from(files.events))
    last = messages[-1] if messages else None
    return last if isinstance(last, Leaves) else None
