"""The children of a host: forked, one of them ahead, and waited for."""

from __future__ import annotations

from typing import Any, Generator, NamedTuple

from ...own import os, own_builtins, select, signal, suppress
from ...protocol.channels import Pipes
from ...protocol.descriptors import Files
from ...protocol.messages import Message, Over
from ...system.limits import insist
from ..child import early_end
from ..child.child import DONE, STOPS, Child
from ..child.usage import wait_for
from ..child.warmup import LIMIT, Warmup
from ..child.working_set import WorkingSet
from ..process.copies import fork
from ..process.output import flush
from ..process.progress import LastWord
from ..process.steps import FAILED, Fork, Passage, Role

own_builtins(globals())


CHILDREN = 2
"""There are no more at once: one that runs a test and one that waits."""


class Waiting(NamedTuple):
    """A child that waits for its order, or runs a test.

    :param number: of its files among those that the host has for its children.
    :param pipes: for a :class:`.messages.Go`, which :class:`.messages.Over` may answer.
    """

    pid: int
    number: int
    pipes: Pipes


class Gone(NamedTuple):
    """A child that has ended, or of which nothing but memory is left.

    :param status: as waitpid(2) gives it.
    :param used: what the child used, if that is wanted.
    :param early: whether its memory is left.
    :param ours: whether it ended with a status that our code in it gave, and no test's.
    """

    status: int
    used: tuple[Any, ...] = ()
    early: bool = False
    ours: bool = True


class Children:
    """Of one host.

    :param child: what each of them is.
    :param measures: whether it is wanted what they use.
    """

    def __init__(self, child: Child, measures: bool, warmup: Warmup) -> None:
        self._child = child
        self._measures = measures
        self._warmup = warmup
        self._waiting: Waiting | None = None
        self._working_set = WorkingSet()
        self._ending: list[int] = []  # of those only memory is left
        self._sets: tuple[Files, ...] = ()
        self._words: tuple[LastWord, ...] = ()
        self._free: list[int] = []
        self.statuses = Statuses()
        self.hosts_link: Pipes | None = None
        """That of the host, which children close."""

    def begin(self, sets: tuple[Files, ...], words: tuple[LastWord, ...]) -> None:
        """Before the first one.

        :param sets: files that are given to one after the other. The keeper has them, too. One set
            is free again when a child has ended, and the keeper is through with it before it has
            the next test run.
        :param words: the last words of those that write to these.
        """
        self._sets = sets
        self._words = words
        self._free = list(range(len(sets)))

    def end(self) -> None:
        """There will be no other."""
        self.let_go()
        for files in self._sets:
            files.close()
        self._sets, self._free = (), []

    @property
    def allow_ahead(self) -> bool:
        """Whether one may be forked while another runs."""
        return self._working_set.allows_ahead

    def next(self) -> Generator[Fork, int, Waiting]:
        """The one that was forked ahead, or a new one."""
        if self._waiting is not None and self._warmup.is_on:
            warm = self._warmup.succeeded(_said(self._waiting, LIMIT))
            if not warm or _is_over(self._waiting.pid):  # it gave its memory back meanwhile
                self.let_go()
        child, self._waiting = self._waiting, None
        return child or (yield from self._fork(None))

    @property
    def may_fork_next(self) -> bool:
        """Whether one may be forked where none runs, or waits.

        Not if it opens GPUs at once, while the keeper waits for their memory to be free.
        """
        return self._waiting is None and not self._warmup.is_on

    def fork_ahead(self, running: Waiting | None = None) -> Generator[Fork, int, None]:
        """Fork the one that is next.

        :param running: the one that runs a test meanwhile.
        """
        try:
            self._waiting = yield from self._fork(running)
        except OSError:  # a limit; where it still is one, the next test will say so
            return

    def await_end(self, child: Waiting) -> Gone:
        """Wait until it has ended, or says that nothing but memory is left of it."""
        self._ending = [pid for pid in self._ending if not _has_ended(pid)]
        over = _said(child) if early_end.SUPPORTED else None
        self._working_set.ended(over.written if isinstance(over, Over) else ())
        if not isinstance(over, Over) or not over.early:
            return self._gone(child)
        self._ending.append(child.pid)
        return Gone((STOPS if over.stops else DONE) << 8, over.used, early=True)

    def _gone(self, child: Waiting) -> Gone:
        try:
            status, used = _wait(child.pid, self._measures)
        except ChildProcessError:
            # A fixture made the kernel reap our children, by other means than Python's signal
            # module; the frames decide.
            return Gone(DONE << 8)
        return Gone(status, used, ours=self._words[child.number].is_said_by(status))

    def let_go(self) -> None:
        """Have no process of ours below the host, in which code of users runs next.

        One that waits for its order would not be a copy of the host any more; of others that have
        ended a fixture could see zombies, and take their statuses by waitpid(2).
        """
        if self._waiting is not None:
            child, self._waiting = self._waiting, None
            _kill(child.pid)  # it may not listen yet
            with suppress(ChildProcessError):  # see _gone
                _wait(child.pid)
            self.release(child)
        for pid in self._ending:
            with suppress(ChildProcessError):
                _wait(pid)
        self._ending = []

    def files(self, child: Waiting) -> Files:
        """Those of a child."""
        return self._sets[child.number]

    def release(self, child: Waiting) -> None:
        """A child has ended: its files are free for another."""
        child.pipes.close()
        self._free.append(child.number)

    def fork_midway(self, passage: Passage) -> Waiting | None:
        """Fork one that goes on, where this is called, with what the host runs.

        :return: None in the child, which goes on when it was told to.
        :raises OSError: if the kernel refuses.
        """
        number, ours, theirs = self._prepare()
        host = os.getpid()
        try:
            pid = fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            role = self._begin(Waiting(host, number, theirs), ours, None, midway=True)
            status = FAILED
            try:
                next(role)
            except StopIteration as end:
                status = end.value
            else:
                passage.role = role
                return None
            finally:
                if passage.role is None:
                    os._exit(status)
        theirs.close()
        self._free.remove(number)
        return Waiting(pid, number, ours)

    def _fork(self, running: Waiting | None) -> Generator[Fork, int, Waiting]:
        number, ours, theirs = self._prepare()
        child = self._begin(Waiting(os.getpid(), number, theirs), ours, running)
        try:
            pid = yield Fork(child)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._free.remove(number)
        return Waiting(pid, number, ours)

    def _prepare(self) -> tuple[int, Pipes, Pipes]:
        """The number of a new child's files, and the host's and its end of what ties the two.

        :raises OSError: if a limit does not allow that.
        """
        number = self._free[0]
        self._sets[number].renew()
        self._words[number].clear()
        ours, theirs = Pipes.pair()
        flush()
        return number, ours, theirs

    def _begin(
        self, own: Waiting, hosts: Pipes, running: Waiting | None, midway: bool = False
    ) -> Role:
        """The role of a new child: let go of what is its host's, and be one.

        :param own: its files and pipes, and the pid of the host.
        :param running: the child that runs a test meanwhile.
        :param midway: whether the host has begun the test.
        """
        self.statuses.leave()
        if self.hosts_link is not None:
            self.hosts_link.close()
        hosts.close()
        if running is not None:
            running.pipes.close()
        for number, files in enumerate(self._sets):
            if number != own.number:
                files.close()
        files = self._sets[own.number]
        warmup = None if running is None else self._warmup
        return (
            yield from self._child.main(
                files,
                self._words[own.number],
                own.pipes,
                own.pid,
                self._working_set,
                warmup,
                midway,
            )
        )


class Statuses:
    """How children ended is kept in a host while tests run, where a suite ignores SIGCHLD.

    The kernel forgets it otherwise, see waitpid(2); tests see SIGCHLD ignored. A context manager,
    within which no code of the suite runs in this process.
    """

    def __init__(self) -> None:
        self._ignored = False

    def __enter__(self) -> None:
        """Have the kernel keep them."""
        self._ignored = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
        if self._ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def __exit__(self, *error: object) -> None:
        """As before."""
        self.leave()

    def leave(self) -> None:
        """Have SIGCHLD ignored again, if it was; in a new child, too."""
        if self._ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            self._ignored = False


def _said(child: Waiting, limit: float | None = None) -> Message | None:
    """Wait until a child says something; None if it ends without a word, or the limit is over.

    Not only for the end of the stream: a process that the test left may hold the other end.

    :param limit: in seconds.
    """
    try:
        end = insist(os.pidfd_open, child.pid)
    except OSError:  # forbidden in a container; or the kernel has reaped it, see _wait
        return None
    try:
        poller = select.poll()
        poller.register(child.pipes.reader, select.POLLIN)
        poller.register(end, select.POLLIN)
        milliseconds = None if limit is None else limit * 1000
        while True:
            # poll(2) compares the limit on open files with how many are asked for.
            found = [number for number, _ in insist(poller.poll, milliseconds)]
            if child.pipes.reader not in found or not child.pipes.read():
                return child.pipes.take_message()
            message = child.pipes.take_message()
            if message is not None:
                return message
    finally:
        os.close(end)


def _wait(pid: int, measures: bool = False) -> tuple[int, tuple[Any, ...]]:
    """The status of a child of this process, as waitpid(2) gives it, and what the child used.

    :param measures: whether that is wanted.
    :raises ChildProcessError: if somebody has waited for it.
    """
    if not measures:
        return os.waitpid(pid, 0)[1], ()
    status, used = wait_for(pid)
    return status, tuple(used)


def _has_ended(pid: int) -> bool:
    try:
        return bool(os.waitpid(pid, os.WNOHANG)[0])
    except ChildProcessError:  # a fixture made the kernel reap our children
        return True


def _is_over(pid: int) -> bool:
    """Whether it has ended; it is not reaped."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has been reaped
        return
