"""The process that forks hosts, keeps the clock, waits and kills; it never runs user code."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Callable, Generator, Iterator, NamedTuple, NoReturn

from ...config.settings import start_limit
from ...own import os, own_builtins, signal, time
from ...protocol.channels import Link, Pipes
from ...protocol.descriptors import Files
from ...protocol.endings import Finished, ForkUnsafe, Lost, Unmet, to_wire
from ...protocol.messages import (
    Broken,
    Ended,
    Finish,
    Follows,
    HostFiles,
    Message,
    OrderAnew,
    Release,
    Run,
    RunTogether,
    Stop,
    TornDown,
)
from ...protocol.process_names import SPAWNED, ends_before
from ...system.limits import refusal
from ...system.stack_texts import stack_text
from ..host.children import CHILDREN
from ..process.copies import fork
from ..process.progress import Progress, last_words
from ..process.relay import DEAF
from ..process.steps import FAILED, Fork, Role
from ..process.tree import send_signal
from .gpu_memory import MemoryWait
from .jobs import HostProcess, Job, Start, Ties
from .spawn import Spare
from .supervisor import Supervisor
from .waiting_loop import DeafError, WorkerGoneError

if TYPE_CHECKING:
    from ...gpu.health.memory import GpuMemory

own_builtins(globals())


class RefusedError(Exception):
    """A limit of the machine keeps a test from being run; the text says which."""


class Ways(NamedTuple):
    """How a new process becomes a host, given what it is for, its ties and the keeper's pid.

    :param fork: the role of one that is a copy.
    :param spawn: what makes it a fresh interpreter.
    """

    fork: Callable[[Start, Ties, int], Role]
    spawn: Callable[[Start, Ties, int], NoReturn]


class Keeper:
    """Serves one worker.

    :param link: to the worker.
    :param remember: called with each :class:`Broken`, for hosts forked later.
    :param stream: whether output is passed on while it is written.
    :param unsafe: why no test can be run in a forked process, or "".
    :param controller: pid to watch where the kernel does not tell of its death, or 0.
    :param memory: who is asked about memory of GPUs, None if there is nobody.
    """

    def __init__(
        self,
        link: Link,
        ways: Ways,
        remember: Callable[[Broken], None],
        stream: bool,
        unsafe: str = "",
        controller: int = 0,
        memory: GpuMemory | None = None,
    ) -> None:
        self._link = link
        self._ways = ways
        self._remember = remember
        self._unsafe = unsafe
        self._orders: deque[Run | RunTogether | Follows | Finish] = deque()
        self._awaits_new_orders = False
        self._below = Supervisor(link, self._obey, stream, controller)
        self._spare = Spare(self._below, self._spawn)
        self._memory = MemoryWait(self._below, memory)
        self._below.may_have_had_gpus = self._note_end

    def main(self) -> Role:
        """The role of the new process, which has been set up by :mod:`.startup`."""
        status = 0
        try:
            self._below.start()
            yield from self._serve()
        except WorkerGoneError:
            status = 0
        except DeafError:
            status = DEAF
        except BaseException as error:  # noqa: BLE001 (the worker's standard error tells)
            os.write(2, f"{stack_text(error)}\n".encode("utf-8", "replace"))
            status = FAILED
        self._below.end_everything()
        return status

    def _note_end(self) -> None:
        self._memory.is_due = True

    # --- what the worker asks for ---

    def _serve(self) -> Generator[Fork, int, None]:
        while True:
            for message in self._link.take_messages():
                self._below.obey(message)
            if not self._orders:
                self._below.poll(1.0)
                continue
            order = self._orders.popleft()
            if isinstance(order, Finish):
                self._finish(order.timeout)
            elif isinstance(order, Follows):
                self._follow(order)
            else:
                last = order if isinstance(order, Run) else Run(*order.runs[-1])
                yield from self._run(order, last)

    def _obey(self, message: Message) -> None:
        if isinstance(message, (Run, RunTogether)):
            if not self._awaits_new_orders:
                self._orders.append(message)
        elif isinstance(message, (Finish, Follows)):
            self._orders.append(message)
        elif isinstance(message, OrderAnew):
            self._awaits_new_orders = False
        elif isinstance(message, Broken):
            self._remember(message)
        elif isinstance(message, Stop):
            now = time.monotonic()
            self._below.stop_deadline = now + message.grace
            # A test that does not go by itself must leave wide fixtures time for their teardown.
            self._below.stop_tests_deadline = now + message.grace / 2
            if self._below.job is None:
                if not self._memory.waits:  # else who waits sees to it
                    self._finish(message.grace)
            elif self._below.job.runs_user_code:
                send_signal(self._below.job.process, signal.SIGINT)

    def _run(self, order: Run | RunTogether, run: Run) -> Generator[Fork, int, None]:
        """Have a host do as the worker orders; `run` is the last test of the order."""
        self._memory.begins(run)
        unmet = self._memory.lacking(run)
        if self._below.stop_deadline is not None:
            # The order to stop overtook this one.
            self._tell(Ended(to_wire(Lost("the run was stopped"))))
            self._finish(0.0)
            return
        if unmet:
            list(self._release(run))
            self._tell(Ended(to_wire(Unmet(unmet))))
            self._finish_if_stopped()
            return
        if self._unsafe and not run.share.startswith(SPAWNED):
            self._tell(Ended(to_wire(ForkUnsafe(self._unsafe))))
            return
        try:
            job = yield from self._have_done(order, run)
        except RefusedError as error:
            list(self._release(run))
            self._tell(Ended(to_wire(Lost(str(error)))))
            self._finish_if_stopped()
            return
        failed = job.ending != Finished() and job.verdict is None
        if failed and job.host.was_spare and job.stage == "start":
            # It was warmed up while others ran the same module, which may be why it failed.
            job = yield from self._have_done(order, run)
        if isinstance(order, RunTogether) and job.ran:
            run = Run(*order.runs[job.ran - 1])
        for released in self._release(run, job.host):
            job.absorb(released)
        self._below.orphans.await_gpus(job)
        self._below.job = None
        gpu_memory = self._memory.back()
        assert job.ending is not None
        stops = job.stops or self._below.stop_deadline is not None
        self._tell(
            Ended(
                to_wire(job.ending), job.pid, job.wide, *job.remains[:3], job.dump,
                job.leftovers, job.survivors, goes_on=job.ending == Finished() and not stops,
                used=job.used, hold_gpus=job.hold_gpus, gpu_memory=gpu_memory,
            )
        )  # fmt: skip
        self._finish_if_stopped()

    def _tell(self, ended: Ended) -> None:
        if not ended.goes_on:
            kept = (each for each in self._orders if isinstance(each, (Finish, Follows)))
            self._orders = deque(kept)
            self._awaits_new_orders = True
        self._below.send(ended)

    def _have_done(self, order: Run | RunTogether, run: Run) -> Generator[Fork, int, Job]:
        host = yield from self._host(_first(order))
        job = self._below.job = Job(run, host, isinstance(order, RunTogether))
        if job.together:
            self._below.set_clock(job, run.timeout)
            job.host.progress.begin()
        else:
            # Until the host says what it does: a fresh interpreter has to collect first.
            job.stage = "start"
            collects = run.share.startswith(SPAWNED)
            self._below.set_clock(
                job,
                start_limit(run.wide_timeout) if collects else run.wide_timeout,
                "" if collects else "begin",
            )
        self._below.at_test = lambda: self._spare.warm(run)
        self._below.tell(job.host, order)
        self._below.wait_for(job)
        return job

    def _finish_if_stopped(self) -> None:
        if self._below.stop_deadline is not None:
            self._finish(max(0.0, self._below.stop_deadline - time.monotonic()))

    def _host(self, run: Run) -> Generator[Fork, int, HostProcess]:
        """The host for a test, a new one if need be."""
        for host in self._below.hosts:
            if (host.share, host.environ) == (run.share, run.environ):
                return host
        start = Start(run.share, run.position, environ=run.environ)
        try:
            host = self._spare.take(run) or (yield from self._new_host(start))
        except (OSError, MemoryError) as error:
            raise RefusedError(f"no process could be made for it: {refusal(error)}") from error
        self._below.hosts.append(host)
        if run.share:
            self._below.send_files(HostFiles(run.share, run.environ, host.pid), host.files)
        return host

    def _new_host(self, start: Start) -> Generator[Fork, int, HostProcess]:
        if start.share.startswith(SPAWNED):
            return self._spawn(start)
        ours, theirs = _ties(start)
        try:
            pid = yield Fork(self._begin_host(start, ours, theirs, os.getpid()))
        except OSError:
            ours.close()
            raise
        finally:
            theirs.link.close()
        return HostProcess(pid, ours, start)

    def _begin_host(self, start: Start, ours: Ties, theirs: Ties, keeper: int) -> Role:
        """The role of a new host: let go of what is the keeper's, and be one."""
        self._let_go(ours)
        return (yield from self._ways.fork(start, theirs, keeper))

    def _let_go(self, ours: Ties) -> None:
        self._below.leave()
        self._memory.let_go()
        ours.link.close()
        os.close(self._link.fileno())

    def _spawn(self, start: Start) -> HostProcess:
        """A host that is a fresh interpreter, whose stack begins anew."""
        ours, theirs = _ties(start)
        keeper = os.getpid()
        try:
            pid = fork()
        except OSError:
            ours.close()
            theirs.link.close()
            raise
        if pid == 0:
            self._let_go(ours)
            self._ways.spawn(start, theirs, keeper)
        theirs.link.close()
        return HostProcess(pid, ours, start)

    def _follow(self, order: Follows) -> None:
        run = Run(0, order.next_position, "", order.next_share, 0.0, order.wide_timeout, 0, 0)
        jobs = list(self._release(run))
        bad = next((job for job in jobs if job.ending != Finished()), None)
        leftovers = tuple(text for job in jobs for text in job.leftovers)
        gpu_memory = self._memory.back()
        if bad is None:
            self._below.send(
                Ended(to_wire(Finished()), leftovers=leftovers, goes_on=True, gpu_memory=gpu_memory)
            )
        else:
            assert bad.ending is not None
            self._tell(
                Ended(
                    to_wire(bad.ending), bad.pid, "teardown", *bad.remains[:3], bad.dump,
                    leftovers, bad.survivors, gpu_memory=gpu_memory,
                )
            )  # fmt: skip
        self._finish_if_stopped()

    def _release(self, run: Run, ran: HostProcess | None = None) -> Iterator[Job]:
        """Have hosts tear down what the next test does not share, or end.

        :param ran: the one that has done so itself.
        """
        for host in list(self._below.hosts):
            over = ends_before(host.share, run.next_share, run.position)
            over = over or host.retire or run.next_position < 0
            if not over and host is not ran:
                yield self._command(host, Release(run.next_position), run)
                over = host in self._below.hosts and host.retire  # by now
            if over:
                yield self._command(host, Finish(run.wide_timeout), run)

    def _command(self, host: HostProcess, command: Message, run: Run) -> Job:
        """Have an idle host tear down."""
        job = Job(run, host)
        job.stage = "teardown"
        self._below.set_clock(job, run.wide_timeout, "begin to tear down")
        outer, self._below.job = self._below.job, job
        self._below.tell(host, command)
        self._below.wait_for(job)
        if isinstance(command, Finish):
            self._below.await_exit(host, job)
        self._below.job = outer
        return job

    def _finish(self, timeout: float) -> None:
        """Tear everything down."""
        self._spare.end()
        run = Run(0, -1, "", "", 0.0, timeout, 0, 0)
        endings = [self._command(host, Finish(timeout), run) for host in list(self._below.hosts)]
        bad = [job for job in endings if job.ending != Finished()]
        leftovers = tuple(text for job in endings for text in job.leftovers)
        gpu_memory = self._memory.back()
        if bad:
            assert bad[0].ending is not None
            remains = bad[0].remains._replace(dump=bad[0].dump)
            self._below.send(TornDown(to_wire(bad[0].ending), *remains, leftovers, gpu_memory))
        else:
            self._below.send(
                TornDown(to_wire(Finished()), leftovers=leftovers, gpu_memory=gpu_memory)
            )


def _ties(start: Start) -> tuple[Ties, Ties]:
    """What ties a host to its keeper: what the keeper has of it, and what the host has.

    :raises OSError: if a limit does not allow that.
    """
    made: list[Files] = []
    ours, theirs = Pipes.pair()
    try:
        for _ in range(1 if start.share else 1 + CHILDREN):
            made.append(Files.create())
        files, *sets = made
        shared = Progress(), tuple(last_words(1 + len(sets)))
    except OSError:
        ours.close()
        theirs.close()
        for each in made:
            each.close()
        raise
    return Ties(ours, files, tuple(sets), *shared), Ties(theirs, files, tuple(sets), *shared)


def _first(order: Run | RunTogether) -> Run:
    return Run(*order.runs[0]) if isinstance(order, RunTogether) else order
