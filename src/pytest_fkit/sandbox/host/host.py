"""The host: holds wide fixtures, and forks a child for each test or runs tests itself."""

from __future__ import annotations

from typing import Callable, NoReturn

import pytest

from ...compat import pytest_fixtures, pytest_nodes
from ...own import os, own_builtins, time
from ...protocol.channels import Pipes
from ...protocol.descriptors import Files, write_last_words
from ...protocol.event_file import Begins, Completed, NotCollected
from ...protocol.messages import Began, Finish, HostDone, Message, Release, Run, RunTogether
from ...protocol.plain_values import carriable
from ...protocol.process_keys import OWN
from ...protocol.whereabouts import WHEREABOUTS
from ...system import limits
from ..child import finalizers
from ..process import titles
from ..process.progress import AnnouncedExit, Progress
from ..process.relay import DEAF, FAILED
from ..process.steps import Role, Steps
from ..process.test_process import TestProcess
from .forking import Forking

own_builtins(globals())


class Host:
    """Serves the keeper until it sends Finish or is gone.

    :param item_at: returns the item at a position, None where there is none.
    :param missing_reason: explains why there is none at a position of which a test was ordered.
    """

    def __init__(
        self,
        process: TestProcess,
        item_at: Callable[[int], pytest.Item | None],
        missing_reason: Callable[[int], str] = lambda _: "",
    ) -> None:
        self._process = process
        self._item = item_at
        self._missing_reason = missing_reason
        self._whereabouts = process.session.config.stash.get(WHEREABOUTS, None)
        self._tests = Forking(process, item_at, self._exit)
        self._last: pytest.Item | None = None
        self._key = OWN
        self._trouble = ""  # why the ordered test could not be run
        self._is_fork = False
        self._announced_exit: AnnouncedExit | None = None

    def main(
        self,
        link: Pipes,
        files: Files,
        sets: tuple[Files, ...],
        progress: Progress,
        exits: tuple[AnnouncedExit, ...],
        keeper: int,
    ) -> Role:
        """The role of a forked host.

        :param link: to the keeper.
        :param files: of this process.
        :param sets: files for its children, empty where it forks none.
        :param progress: tells the keeper when each of several tests begins.
        :param exits: its own announced exit, then those of its children.
        :param keeper: pid of the keeper.
        """
        status = FAILED
        self._announced_exit = exits[0]
        try:
            self._process.enter(files, keeper)
            self._process.relay.open()
            finalizers.forget_inherited()
            self._is_fork = True
            self._tests.children.begin(sets, exits[1:])
            self._link = link
            self._progress = progress
            yield from self._serve()
            status = 0
        except BaseException as error:  # noqa: BLE001 (it is the end of the process, whatever it was)
            status = limits.status_of(error, FAILED)
            write_last_words(error)
        self._announced_exit.announce(status)
        return status

    def serve_here(self, link: Pipes) -> Steps[None]:
        """Serve in a fresh interpreter, whose pytest session continues afterwards."""
        self._process.relay.open()
        self._process.output.enter_process()
        self._link = link
        yield from self._serve()

    def _serve(self) -> Steps[None]:
        tests = self._tests
        tests.serve(self._link)
        # A hard limit that a wide fixture lowers can't be raised again; a new host has the old one.
        self._limits = limits.hard()
        while True:
            message = self._link.receive()
            if message is None:
                if self._link.trouble:
                    self._exit(DEAF)
                return
            retire, ran = False, 1
            self._trouble, tests.hit_limit = "", False
            try:
                retire, ran = yield from self._obey(message)
            except KeyboardInterrupt as error:  # in code of ours, around that of users
                self._process.relay.interrupt(error)
            if isinstance(message, Finish):
                self._link.send(HostDone())
                return
            titles.idle()
            retire = retire or (tests.hit_limit and limits.hard() != self._limits)
            wary, stops = tests.hooks_prevent_forks, self._process.relay.stops
            awaits = self._must_report_first()
            self._link.send(HostDone(retire, stops, ran, self._trouble, wary, awaits))
            if isinstance(message, Run) and not retire and not stops:
                yield from tests.fork_next(message)

    def _obey(self, message: Message) -> Steps[tuple[bool, int]]:
        """Do what an order says; whether another host should take over, and how many tests ran."""
        tests = self._tests
        retire, ran = False, 1
        if isinstance(message, Run):
            self._key = message.key
            yield from self._run(message)
            retire = self._is_unfit() or (tests.ran_tests and self._is_spent())
        elif isinstance(message, RunTogether):
            self._key = message.run.key
            ran = yield from self._run_together(message)
            retire = self._is_unfit()
        elif isinstance(message, Release):
            nextitem = self._item(message.next_position)
            if nextitem is None or not pytest_fixtures.shares_setup(
                self._process.session, nextitem
            ):
                tests.children.end_all()  # the child forked ahead was for another test
            self._tear_down(nextitem)
            retire = tests.ran_tests and self._is_spent()
        elif isinstance(message, Finish):
            self._finish()
        return retire, ran

    def _exit(self, status: int) -> NoReturn:
        if self._announced_exit is not None:
            self._announced_exit.announce(status)
        os._exit(status)

    def _finish(self) -> None:
        self._tests.children.end_all()
        self._link.send(Began("teardown"))
        self._tear_down(None)
        self._process.measuring.send(last=True)
        if self._is_fork:  # a fresh interpreter's own pytest does this
            if self._key.scope == "session":
                self._process.session_end.finish_session()
            self._process.session_end.conclude()
        finalizers.run_own()

    def _is_spent(self) -> bool:
        """Whether a new host should take over: what kept this one from forking is torn down.

        This one can't fork again, since it has run tests itself.
        """
        return not self._key.is_shared and not self._process.fixtures.watch.cause

    def _is_unfit(self) -> bool:
        """Whether a test or a wide fixture left this process unfit for another test.

        Exits at once if the process can't report any more, or if pytest failed in it.
        """
        if self._process.relay.lost:
            self._exit(self._process.relay.lost)
        return self._poisoned or self._tests.is_doubtful or not self._process.output.is_whole()

    @property
    def _poisoned(self) -> bool:
        """Whether an error of a test or a wide fixture left this process unfit for others."""
        failures = self._process.gpu_failures
        return failures is not None and bool(failures.poisoned)

    def _must_report_first(self) -> bool:
        """Whether no other test may begin before the controller has judged the last one's error."""
        return self._process.gpu_failures is not None and self._process.gpu_failures.counted

    def _run_together(self, order: RunTogether) -> Steps[int]:
        """Run several tests in this process, until time is up or one has to be reported first.

        :return: how many were begun.
        """
        session = self._process.session
        if self._process.gpu_failures is not None:
            self._process.gpu_failures.counted = False
        if order.run.tests_failed >= 0:
            session.testsfailed = order.run.tests_failed
        number = 0
        end = time.monotonic() + order.seconds
        try:
            for number in range(1, len(order.tests) + 1):
                run = order.at(number - 1)
                self._progress.begin()
                if self._whereabouts is not None:
                    self._whereabouts.runs(run.position)
                self._process.relay.send(Begins(run.position))
                run = run._replace(tests_failed=session.testsfailed)
                yield from self._run(run, together=True)
                if self._process.relay.stops or self._is_unfit() or self._must_report_first():
                    break
                if time.monotonic() > end:
                    break
        except KeyboardInterrupt as error:  # between two tests
            self._process.relay.interrupt(error)
        return number

    def _run(self, run: Run, together: bool = False) -> Steps[None]:
        item = self._item(run.position)
        if item is None:
            self._process.relay.open()
            self._process.relay.send(NotCollected(carriable(self._missing_reason(run.position))))
            self._process.relay.send(Completed(by_pytest=False))
            return
        nextitem = self._item(run.next_position)
        if nextitem is item:
            nextitem = pytest_nodes.distinct(item)
        self._last = item
        if self._process.measuring.is_on:
            self._process.measuring.before_test(item)
        try:
            if run.key.is_shared or self._tests.ran_tests:
                self._process.before_test(item, run)
                if not together:
                    self._link.send(Began("test"))
                yield from self._tests.run_here(item, nextitem, 0.0)
            else:
                try:
                    yield from self._tests.run(run, item, nextitem)
                except (OSError, MemoryError) as error:
                    if not limits.is_refusal(error):
                        raise
                    self._trouble, self._tests.hit_limit = limits.refusal(error), True
                self._tear_down(nextitem)
        except (pytest.exit.Exception, KeyboardInterrupt) as error:
            self._process.relay.interrupt(error)
        self._tests.end_hooks()
        pytest_fixtures.forget_request(item)

    def _tear_down(self, nextitem: pytest.Item | None) -> None:
        if self._last is None:
            return
        session = self._process.session
        if nextitem is not None and pytest_fixtures.shares_setup(session, nextitem):
            return
        try:
            if not pytest_fixtures.needs_tear_down(session, nextitem):
                pytest_fixtures.tear_down(session, nextitem)
                return
            self._tests.children.end_all()
            self._link.send(Began("teardown"))
            self._process.fixtures.tear_down(self._last, nextitem)
            self._process.measuring.send()
            self._process.states.send_of_wide()
        except (pytest.exit.Exception, KeyboardInterrupt) as error:
            self._process.relay.interrupt(error)
