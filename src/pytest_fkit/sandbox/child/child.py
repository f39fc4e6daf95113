"""A process forked from the host that runs one test and is gone."""

from __future__ import annotations

import sys
from typing import Callable, Generator, NoReturn

import pytest

from ... import system
from ...compat import pytest_fixtures, pytest_hooks, pytest_nodes
from ...config.settings import measures_usage
from ...gpu.slices.ownership import owned_by
from ...own import os, own_builtins, resource
from ...protocol.channels import Pipes
from ...protocol.descriptors import Files
from ...protocol.event_file import Completed, Leaves
from ...protocol.messages import Go, Over
from ...system import pages
from ...system.limits import status_of
from ...system.unforkable import in_bad_fork
from ..process.output import flush
from ..process.progress import LastWord, Tally
from ..process.relay import DEAF, LEAVES, Relay
from ..process.steps import FAILED, Role, RunItem, Step
from ..process.test_process import TestProcess
from . import early_end, finalizers
from .usage import until_now
from .warmup import Warmup
from .working_set import MOST, WorkingSet

own_builtins(globals())

DONE = 82
"""Exit status of a child that finished: 0 is what a test leaves with by itself."""

STOPS = 84
"""Exit status of a child that finished, and reported what stops the run."""

IN_ORDER = (0, DONE << 8, STOPS << 8)
"""Statuses, as waitpid(2) gives them, with which a child that said all may end."""


def run_protocol(
    item: pytest.Item, nextitem: pytest.Item | None, relay: Relay
) -> Generator[Step, BaseException | None, None]:
    """Run the whole pytest_runtest_protocol chain; what would stop the run is relayed.

    :raises pytest.exit.Exception: only where the relay is muted, that is, in a child that leaves.
    """
    raised = yield RunItem(item, nextitem)
    relay.send_flags()  # a hook may set them after its yield
    if raised is not None:
        if relay.muted:
            raise raised
        relay.interrupt(raised)


class Child:
    """What the new process needs, put together in the host before the fork."""

    def __init__(
        self,
        session: pytest.Session,
        process: TestProcess,
        item_at: Callable[[int], pytest.Item | None],
    ) -> None:
        self._session = session
        self._item = item_at
        self._relay = process.relay
        self._fixtures = process.fixtures
        self._output = process.output
        self._measuring = process.measuring
        self._states = process.states
        self._session_end = process.session_end
        self._reruns = process.reruns
        self._measures = measures_usage(session.config)
        self._owns_gpus = owned_by(session.config) is not None
        self._word: LastWord | None = None
        self.failures: Tally | None = None
        """Of the host."""

    def main(
        self,
        files: Files,
        word: LastWord,
        pipes: Pipes,
        host: int,
        working_set: WorkingSet,
        warmup: Warmup | None,
        midway: bool = False,
    ) -> Role:
        """Run a test when the host says which: the role of the new process.

        Where the host has begun it, the step that runs it is the rest of it.

        :param word: its last one.
        :param pipes: by which a :class:`Go` comes, or their end.
        :param host: pid of the host.
        :param working_set: the host's.
        :param warmup: the host's, for a child that is forked while another runs a test.
        :param midway: whether the host has begun the test.
        """
        status = FAILED
        self._word = word
        try:
            tells = working_set.is_wanted
            if not tells:
                working_set.common.copy_now()  # before one of them is written to
            os.setpgid(0, 0)
            system.die_with_parent(host)
            system.be_first_for_oom_killer()
            if midway:
                self._output.hand_on(files)
            files.install()
            self._output.enter_process(midway)
            finalizers.forget_inherited()
            self._session_end.enter_process()
            self._fixtures.leave_to_host()
            if warmup is not None and warmup.is_on:
                warmup.run(pipes)
            go = pipes.receive()
            pipes.stop_reading()
            end = _End(pipes, tells, self._measures, self._owns_gpus)
            if isinstance(go, Go):
                status = yield from self._obey(go, end, midway)
            else:
                status = DEAF if pipes.trouble else 0
        except BaseException as error:  # noqa: BLE001 (it is the end of the process)
            status = status_of(error, FAILED)
            sys.excepthook(*sys.exc_info())
        flush()
        if self._relay.is_copy():
            return 0
        word.say(status)
        return status

    def _obey(self, go: Go, end: _End, midway: bool) -> Role:
        self._relay.open(go.wide_setup_seconds)
        if midway:
            self._relay.announce()
        item = self._item(go.position)
        assert item is not None
        self._session.testsfailed = go.tests_failed
        pytest_nodes.set_location(item, go.location)
        if self._reruns is not None:
            self._reruns.begin(go.attempts, go.suite_reruns)
        self._fixtures.enter_child(set(go.refused), item, self._leave_at_once)
        return (yield from self._run(item, self._item(go.next_position), end))

    def _run(self, item: pytest.Item, nextitem: pytest.Item | None, end: _End) -> Role:
        unsafe = in_bad_fork() if self._fixtures.watch.on else ""
        if unsafe:
            self._relay.send(Leaves("", unsafe))
            return LEAVES
        try:
            yield from run_protocol(item, nextitem, self._relay)
        except pytest.exit.Exception:
            return self._leave()
        self._tear_down_quietly()
        if self.failures is not None:
            self.failures.set(self._session.testsfailed)
        self._measuring.send()
        self._states.send()
        self._relay.enter("exit")
        flush()
        self._output.enter_exit()
        self._session_end.conclude()
        finalizers.run_own()
        self._relay.send(Completed(by_pytest=not pytest_hooks.others_run(item)))
        if self._relay.lost:
            return self._relay.lost
        if not self._relay.is_copy():
            end.announce(self._relay.stops)
        return STOPS if self._relay.stops else DONE

    def _leave(self) -> int:
        leaving = self._fixtures.leaving
        assert leaving is not None
        self._tear_down_quietly()
        self._session_end.conclude()
        finalizers.run_own()
        self._relay.muted = False
        self._relay.send(Leaves(leaving.argname))
        return LEAVES

    def _leave_at_once(self, argname: str) -> NoReturn:
        self._relay.send(Leaves(argname))
        assert self._word is not None
        self._word.say(LEAVES)
        os._exit(LEAVES)

    def _tear_down_quietly(self) -> None:
        # After an interruption something may still be set up; nobody hears of errors here, as in
        # plain pytest, where the terminal is showing the interruption by then.
        try:
            pytest_fixtures.tear_down(self._session, None)
        except BaseException:  # noqa: BLE001 (see above)
            return


class _End:
    """Of a child that runs a test: tells the host ahead.

    :param tells: whether to tell, too, which pages of its host it has copies of, or the host.
    :param measures: whether to tell what it used.
    :param owns_gpus: whether its worker does.
    """

    def __init__(self, pipes: Pipes, tells: bool, measures: bool, owns_gpus: bool) -> None:
        self._pipes = pipes
        self._owns_gpus = owns_gpus
        self._tells = tells
        self._measures = measures
        self._inode = os.fstat(pipes.writer).st_ino
        self._memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def announce(self, stops: bool) -> None:
        """Say so if nothing but memory is left of this process, in which nobody runs any more.

        If it can't be said the host sees the end itself: the test may have closed the pipe, or an
        audit hook of the test may raise anything.
        """
        try:
            self._announce(stops)
        except Exception:  # noqa: BLE001 (see above)
            return

    def _announce(self, stops: bool) -> None:
        early = early_end.SUPPORTED and early_end.is_possible(self._memory, self._owns_gpus)
        if not early and not self._tells:
            return
        written = tuple(pages.exclusive()) if self._tells else ()
        used = until_now() if early and self._measures else ()
        writer = self._pipes.writer
        if os.fstat(writer).st_ino == self._inode:
            if early:
                early_end.close_others(writer)
            self._pipes.send(Over(stops, early, written if len(written) <= MOST else (), used))
