"""The child: a fork of the host that runs one test and exits."""

from __future__ import annotations

from typing import Callable, Generator, NoReturn

import pytest

from ... import system
from ...compat import pytest_fixtures, pytest_hooks, pytest_nodes
from ...own import os, own_builtins, resource, suppress
from ...protocol.channels import Pipes
from ...protocol.descriptors import Files, write_last_words
from ...protocol.event_file import Completed, Leaves
from ...protocol.messages import Go
from ...system import pages
from ...system.limits import room, status_of
from ...system.unforkable import holders, in_bad_fork
from ..process.crash_wait import WAITS, await_keeper
from ..process.output import flush
from ..process.progress import AnnouncedExit, Tally
from ..process.relay import DEAF, FAILED, LEAVES, Relay
from ..process.steps import Role, RunItem, Step
from ..process.test_process import GPU_MEMORY, TestProcess, plant
from . import finalizers
from .warmup import Warmup
from .working_set import WorkingSet

own_builtins(globals())

DONE = 82
"""Exit status of a child that finished; not 0, with which a test may exit by itself."""

STOPS = 84
"""Exit status of a child that finished, and after whose reports no test may begin unasked."""

IN_ORDER = (0, DONE << 8, STOPS << 8)
"""Wait statuses with which a child may end that has sent Completed."""


def run_protocol(
    item: pytest.Item,
    nextitem: pytest.Item | None,
    relay: Relay,
    unblock_interrupts: Callable[[], None] | None = None,
) -> Generator[Step, BaseException | None, None]:
    """Run the whole pytest_runtest_protocol chain, and relay an exception that stops the run.

    :param unblock_interrupts: see :meth:`Child.main`.
    :raises pytest.exit.Exception: only if the relay is muted, that is, in a child that leaves.
    """
    try:
        if unblock_interrupts is not None:
            unblock_interrupts()
        raised = yield RunItem(item, nextitem)
    except KeyboardInterrupt as error:  # before the chain began
        raised = error
    relay.send_flags()  # a hook wrapper may set them after its yield
    if raised is not None:
        if relay.muted:
            raise raised
        relay.interrupt(raised)


class Child:
    """The role of children, prepared in the host before any fork."""

    def __init__(
        self,
        process: TestProcess,
        item_at: Callable[[int], pytest.Item | None],
    ) -> None:
        self._process = process
        self._item = item_at
        self._counts_gpus = GPU_MEMORY in process.session.config.stash
        self._waits = process.session.config.stash.get(WAITS, False)
        self._announced_exit: AnnouncedExit | None = None
        self.working_set = WorkingSet()
        self.failures: Tally
        """The host's count of failures, which it sets, and children update."""

    def main(
        self,
        files: Files,
        announced: AnnouncedExit,
        pipes: Pipes,
        host: int,
        warmup: Warmup | None,
        unblock_interrupts: Callable[[], None],
        midway: bool = False,
    ) -> Role:
        """The role of the new process: wait for an order, run its test, exit.

        Where the host has begun the test, the step that runs it is answered by the run under way.

        :param files: of this process.
        :param announced: its announced exit.
        :param pipes: by which :class:`Go` comes, or the end of the stream.
        :param host: pid of the host.
        :param warmup: the host's, for a child that is forked while another runs a test, else None.
        :param unblock_interrupts: lets SIGINT, which is blocked, have its effect: it interrupts a
            test, and nothing of ours before it. Not called if the host has begun the test.
        :param midway: whether the host has begun the test.
        """
        status, pid = FAILED, os.getpid()
        self._announced_exit = announced
        try:
            self._process.enter(files, host, midway)
            system.be_first_for_oom_killer()
            finalizers.forget_inherited()
            self._process.fixtures.leave_to_host()
            if warmup is not None and warmup.is_on:
                warmup.run(pipes)
            go = pipes.receive()
            pipes.stop_reading()
            if isinstance(go, Go):
                status = yield from self._execute(go, None if midway else unblock_interrupts)
            else:
                status = DEAF if pipes.trouble else 0
        except BaseException as error:  # noqa: BLE001 (it is the end of the process)
            status = status_of(error, FAILED)
            write_last_words(error)
        flush()
        if os.getpid() != pid:  # a copy that the test made
            return 0
        announced.announce(status)
        return status

    def _execute(self, go: Go, unblock_interrupts: Callable[[], None] | None) -> Role:
        self._process.relay.open(go.wide_setup_seconds)
        if unblock_interrupts is None:  # the host has begun the test
            self._process.relay.announce()
        item = self._item(go.run.position)
        assert item is not None
        nextitem = self._item(go.run.next_position)
        if nextitem is item:
            nextitem = pytest_nodes.distinct(item)
        self._process.before_test(item, go.run)
        self._process.fixtures.enter_child(set(go.refused), item, self._leave_at_once)
        if go.run.seed >= 0:
            plant(item)
        unsafe = in_bad_fork() if self._process.fixtures.watch.on else ""
        if unsafe:
            self._process.relay.send(Leaves("", unsafe))
            return LEAVES
        try:
            yield from run_protocol(item, nextitem, self._process.relay, unblock_interrupts)
        except pytest.exit.Exception:
            return self._leave()
        self._tear_down_quietly()
        self.failures.set(self._process.session.testsfailed)
        if self._process.measuring.is_on:
            self._process.measuring.send()
        self._process.states.send(item)
        self._process.relay.enter("exit")
        flush()
        self._process.output.leave_test()
        self._process.output.enter_exit()
        self._process.session_end.conclude()
        finalizers.run_own()
        if self._waits:
            await_keeper()
        self._process.relay.send(
            Completed(not pytest_hooks.others_run(item), self._counts_gpus and _may_free_gpus())
        )
        if self._process.relay.lost:
            return self._process.relay.lost
        if self.working_set.is_wanted and not self._process.relay.is_copy():
            with suppress(Exception):  # an audit hook of the test may raise anything
                self.working_set.tell(pages.exclusive())
        return STOPS if self._process.relay.stops else DONE

    def _leave(self) -> int:
        leaving = self._process.fixtures.leaving
        assert leaving is not None
        self._tear_down_quietly()
        self._process.session_end.conclude()
        finalizers.run_own()
        self._process.relay.muted = False
        self._process.relay.send(Leaves(leaving.argname))
        return LEAVES

    def _leave_at_once(self, argname: str) -> NoReturn:
        self._process.relay.send(Leaves(argname))
        assert self._announced_exit is not None
        self._announced_exit.announce(LEAVES)
        os._exit(LEAVES)

    def _tear_down_quietly(self) -> None:
        # After an interrupt something may still be set up. Errors are not reported, as in plain
        # pytest, where the terminal shows the interrupt by then.
        try:
            pytest_fixtures.tear_down(self._process.session, None)
        except BaseException:  # noqa: BLE001 (see above)
            return


def _may_free_gpus() -> bool:
    """Whether this process has a GPU open, or has waited for others, which may have had."""
    if resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss:
        return True
    try:
        with room():
            return bool(holders([os.getpid()]))
    except Exception:  # noqa: BLE001 (an audit hook of the test may raise anything)
        return True
