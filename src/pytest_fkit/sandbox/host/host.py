"""A process forked from the keeper: holds wide fixtures and forks tests, or runs them itself."""

from __future__ import annotations

from typing import Any, Callable, Generator, NoReturn

import pytest

from ... import system
from ...compat import pytest_fixtures, pytest_hooks, pytest_nodes
from ...config.settings import measures_usage
from ...own import os, own_builtins, suppress, time
from ...protocol.channels import Pipes
from ...protocol.descriptors import Files, read_from, slots
from ...protocol.event_file import (
    Begins,
    Completed,
    Leaves,
    NotCollected,
    SharedProcess,
    Used,
    UsedBefore,
)
from ...protocol.messages import (
    PATIENCE,
    Began,
    ChildExited,
    Finish,
    Forked,
    Go,
    HostDone,
    Ping,
    Release,
    Run,
    RunTogether,
    WideSetUp,
)
from ...protocol.plain_values import carriable
from ...protocol.process_names import SESSION
from ...protocol.running_test import KEY as WHEREABOUTS
from ...protocol.wire import Unpacker
from ...system import limits
from ...system.stack_texts import stack_text
from ..child import finalizers
from ..child.child import IN_ORDER, STOPS, Child, run_protocol
from ..child.usage import Meter
from ..child.warmup import GAVE_BACK, Warmup
from ..process.progress import LastWord, Progress, Tally
from ..process.relay import DEAF, LEAVES
from ..process.steps import FAILED, Role, RunItem, Step
from ..process.test_process import TestProcess
from .children import Children, Waiting
from .midway import Midway, Surroundings

own_builtins(globals())

_GAVE_BACK = Leaves("")
"""Of a child that did not get its order any more."""


class Host:
    """Serves the keeper until it says Finish or is gone.

    :param item_at: the item at a position, None where there is none.
    :param absence: says why there is none at a position where one was asked for.
    """

    def __init__(
        self,
        session: pytest.Session,
        process: TestProcess,
        item_at: Callable[[int], pytest.Item | None],
        absence: Callable[[int], str] = lambda _: "",
    ) -> None:
        self._session = session
        self._item = item_at
        self._absence = absence
        self._relay = process.relay
        self._fixtures = process.fixtures
        self._output = process.output
        self._measuring = process.measuring
        self._states = process.states
        self._session_end = process.session_end
        self._reruns = process.reruns
        self._gpu_failures = process.gpu_failures
        self._measures = measures_usage(session.config)
        self._whereabouts = session.config.stash.get(WHEREABOUTS, None)
        self._child = Child(session, process, item_at)
        self._children = Children(
            self._child, self._measures, Warmup(session.config, process.relay)
        )
        self._last: pytest.Item | None = None
        self._ran_tests = False
        self._share = ""
        self._trouble = ""  # what kept it from running the test that it was told to run
        self._is_fork = False
        self._word: LastWord | None = None
        self._wary = False  # whether hooks left in it what keeps it from forking
        self._limited = False  # whether that, or what kept a child from it, was a limit

    def main(
        self,
        link: Pipes,
        files: Files,
        sets: tuple[Files, ...],
        progress: Progress,
        words: tuple[LastWord, ...],
        keeper: int,
    ) -> Role:
        """The role of the new process.

        :param sets: the files of its children, none where it will have no children.
        :param words: its last one, and those of its children.
        """
        status = FAILED
        self._word = words[0]
        try:
            os.setpgid(0, 0)
            system.die_with_parent(keeper)
            files.install()
            self._relay.open()
            self._output.enter_process()
            finalizers.forget_inherited()
            self._session_end.enter_process()
            self._is_fork = True
            self._children.begin(sets, words[1:])
            self._link = link
            self._progress = progress
            yield from self._serve()
            status = 0
        except BaseException as error:  # noqa: BLE001 (it is the end of the process, whatever it was)
            status = limits.status_of(error, FAILED)
            with suppress(OSError):
                os.write(slots.err, stack_text(error).encode("utf-8", "replace"))
        self._word.say(status)
        return status

    def serve_here(self, link: Pipes) -> Generator[Step, Any, None]:
        """As :meth:`main`, in a fresh interpreter, which goes on afterwards."""
        self._relay.open()
        self._output.enter_process()
        self._link = link
        yield from self._serve()

    def _serve(self) -> Generator[Step, Any, None]:
        self._children.hosts_link = self._link
        self._failures = self._child.failures = Tally()
        # No process gets one back that a wide fixture lowered; another host has what there was.
        self._limits = limits.hard()
        while True:
            message = self._link.receive()
            if message is None:
                if self._link.trouble:
                    self._exit(DEAF)
                return
            retire, ran = False, 1
            self._trouble, self._limited = "", False
            if isinstance(message, Run):
                self._share = message.share
                yield from self._run(message)
                retire = self._poisoned or self._is_spent() or (self._ran_tests and self._broken())
            elif isinstance(message, RunTogether):
                self._share = Run(*message.runs[0]).share
                ran = yield from self._run_together(message)
                retire = self._broken()
            elif isinstance(message, Release):
                nextitem = self._item(message.next_position)
                if nextitem is None or not pytest_fixtures.shares_setup(self._session, nextitem):
                    self._children.let_go()  # one was forked for another test than follows
                self._tear_down(nextitem)
                retire = self._is_spent()
            elif isinstance(message, Finish):
                self._end()
                self._link.send(HostDone())
                return
            retire = retire or (self._limited and limits.hard() != self._limits)
            self._link.send(HostDone(retire, self._relay.stops, ran, self._trouble, self._wary))

    def _exit(self, status: int) -> NoReturn:
        if self._word is not None:
            self._word.say(status)
        os._exit(status)

    def _end(self) -> None:
        self._children.let_go()
        self._link.send(Began("teardown"))
        self._tear_down(None)
        self._measuring.send(last=True)
        if self._is_fork:  # a fresh interpreter's own pytest does this
            if self._share == SESSION:
                self._session_end.finish_session()
            self._session_end.conclude()
        finalizers.run_own()

    def _is_spent(self) -> bool:
        """Whether what kept it from forking has gone, and with it the reason to run tests itself.

        It forks no other, since it ran some.
        """
        return self._ran_tests and not self._share and not self._fixtures.unforkable

    def _broken(self) -> bool:
        """Whether a test that ran in this process left it unfit for another.

        It leaves at once if it can't report any more.
        """
        if self._relay.lost:
            self._exit(self._relay.lost)
        return self._poisoned or not self._output.is_whole()

    @property
    def _poisoned(self) -> bool:
        """Whether a GPU error, of a test or of a wide fixture, left it unable to use its GPU."""
        return self._gpu_failures is not None and bool(self._gpu_failures.poisoned)

    def _is_held(self) -> bool:
        """Whether no other test is to begin before the controller has heard of the last one."""
        return self._gpu_failures is not None and self._gpu_failures.counted

    def _run_together(self, order: RunTogether) -> Generator[Step, Any, int]:
        """Run these tests, as many as the time allows and up to one whose GPU may be sick.

        :return: how many.
        """
        session = self._session
        if self._gpu_failures is not None:
            self._gpu_failures.counted = False
        session.testsfailed = Run(*order.runs[0]).tests_failed
        number = 0
        end = time.monotonic() + order.seconds
        try:
            for fields in order.runs:
                run = Run(*fields)
                number += 1
                self._progress.begin()
                if self._whereabouts is not None:
                    self._whereabouts.runs(run.position)
                self._relay.send(Begins(run.position))
                run = run._replace(tests_failed=session.testsfailed)
                yield from self._run(run, together=True)
                if self._relay.stops or self._broken() or self._is_held():
                    break
                if time.monotonic() > end:
                    break
        except KeyboardInterrupt as error:  # between two tests
            self._relay.interrupt(error)
        return number

    def _run(self, run: Run, together: bool = False) -> Generator[Step, Any, None]:
        item = self._item(run.position)
        if item is None:
            self._relay.open()
            self._relay.send(NotCollected(carriable(self._absence(run.position))))
            self._relay.send(Completed(by_pytest=False))
            return
        nextitem = self._item(run.next_position)
        self._last = item
        self._measuring.note(item)
        try:
            if run.share or self._ran_tests:
                self._session.testsfailed = run.tests_failed
                pytest_nodes.set_location(item, run.location)
                if self._reruns is not None:
                    self._reruns.begin(run.attempts, run.suite_reruns)
                if not together:
                    self._link.send(Began("test"))
                yield from self._run_here(item, nextitem, 0.0)
            else:
                try:
                    yield from self._run_in_children(run, item, nextitem)
                except (OSError, MemoryError) as error:
                    if not limits.is_refusal(error):
                        raise
                    self._trouble, self._limited = limits.refusal(error), True
                self._tear_down(nextitem)
        except (pytest.exit.Exception, KeyboardInterrupt) as error:
            self._relay.interrupt(error)
        pytest_fixtures.forget_request(item)

    def _failed_before(self, run: Run) -> int:
        """How many tests have failed; the order may be older than a failure here."""
        return max(run.tests_failed, self._session.testsfailed)

    def _run_in_children(
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
                yield from self._run_here(item, nextitem, go.wide_setup_seconds, left.unsafe)
                return
            if self._fixtures.begins(item):
                yield from self._begin(go, item, nextitem, (left.argname,))
                return
            seconds = self._set_up(item, left.argname)
            go = go._replace(
                refused=(*go.refused, left.argname),
                wide_setup_seconds=go.wide_setup_seconds + seconds,
            )
            if self._fixtures.unforkable:
                self._link.send(Began("test"))
                yield from self._run_here(item, nextitem, go.wide_setup_seconds)
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
        pytest_nodes.set_location(item, go.location)
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
            return
        if raised is not None:
            self._relay.interrupt(raised)
        if self._fixtures.left_by_hooks:
            self._ran_tests = self._wary = True
        self._conclude(item, meter)

    def _settle(self, item: pytest.Item) -> None:
        if not self._note_set_up():
            self._exit(DEAF if self._link.trouble else 0)
        self._measuring.send()
        self._measuring.resume(item)

    def _resume(self) -> None:
        self._link.send(Began("setup"))
        self._relay.announce()  # the reports of a test that starts again are discarded

    def _stay(self, cause: str, meter: Meter | None) -> None:
        self._ran_tests = True
        self._children.end()
        self._relay.send(SharedProcess(carriable(cause)))
        if meter is not None:
            self._relay.send(UsedBefore(tuple(meter.before)))
        self._link.send(Began("test"))

    def _see_through(self, child: Waiting, go: Go) -> tuple[str | None, str]:
        self._tell_of(child, go)
        left = self._see_end(child)
        return (None, "") if left is None else (left.argname, left.unsafe)

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

    def _run_here(
        self,
        item: pytest.Item,
        nextitem: pytest.Item | None,
        wide_setup_seconds: float,
        cause: str = "",
    ) -> Generator[Step, Any, None]:
        """Run the test in this process, which forks no test from now on.

        :param cause: what keeps the test from being forked, where no wide fixture is to blame.
        """
        self._ran_tests = True
        self._children.end()
        self._relay.open(wide_setup_seconds)
        cause = self._fixtures.unforkable or cause
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
        self._relay.send(Completed(by_pytest=not pytest_hooks.others_run(item)))

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
            self._limited = self._limited or bool(refused)
            left = _left_for(self._children.files(child), gone.status)
        finally:
            self._children.release(child)
        stops = gone.ours and gone.status == STOPS << 8
        if gone.status in IN_ORDER:
            self._session.testsfailed = self._failures.get()
        exited = ChildExited(
            child.pid, gone.status, left is not None, stops, gone.used, gone.early, gone.ours
        )
        self._link.hold(exited)
        return left

    def _tear_down(self, nextitem: pytest.Item | None) -> None:
        if self._last is None:
            return
        if pytest_fixtures.needs_tear_down(self._session, nextitem):
            self._children.let_go()
            self._link.send(Began("teardown"))
        try:
            if self._fixtures.tear_down(self._last, nextitem):
                self._measuring.send()
        except (pytest.exit.Exception, KeyboardInterrupt) as error:
            self._relay.interrupt(error)


def _left_for(files: Files, status: int) -> Leaves | None:
    if status == GAVE_BACK << 8 and not os.fstat(files.events).st_size:
        return _GAVE_BACK
    if status != LEAVES << 8:
        return None
    messages = Unpacker().feed(read_from(files.events))
    last = messages[-1] if messages else None
    return last if isinstance(last, Leaves) else None
