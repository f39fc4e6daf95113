"""The keeper: executes the worker's orders by means of hosts; it never runs user code."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generator, Iterator, NoReturn, Protocol

from ...config.settings import start_limit
from ...own import os, own_builtins, signal, time
from ...protocol.channels import Link, Pipes
from ...protocol.descriptors import Files
from ...protocol.endings import Ending, Finished, ForkUnsafe, Lost, Unmet
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
from ...system.limits import refusal
from ...system.stack_texts import stack_text
from ..host.children import CHILDREN
from ..process.copies import fork
from ..process.progress import Progress, announced_exits
from ..process.relay import DEAF, FAILED
from ..process.steps import Fork, Role
from ..process.tree import send_signal
from .debugger import Tools
from .gpu_memory import MemoryWait
from .jobs import HostConnection, HostProcess, HostStart, Job
from .kept_cores import Keeping
from .spawn import Spare
from .supervisor import Supervisor
from .waiting_loop import MessageLostError, WorkerGoneError

if TYPE_CHECKING:
    from ...gpu.health.memory import GpuMemory

own_builtins(globals())


class RefusedError(Exception):
    """No process can be made for a test; the text names the limit that forbids it."""


class Starts(Protocol):
    """How a new process becomes a host."""

    def fork(self, start: HostStart, connection: HostConnection, keeper: int) -> Role:
        """The role of a host that stays a fork of the keeper, whose pid is given."""

    def spawn(self, start: HostStart, connection: HostConnection, keeper: int) -> NoReturn:
        """Replace the process by a fresh interpreter."""

    def remember(self, message: Broken) -> None:
        """Have hosts that are forked from now on know this."""


class Keeper:
    """Serves one worker.

    :param stream: whether output is forwarded while it is written.
    :param unsafe: why no test can be run in a forked process, or "".
    :param controller: pid to poll on systems where its death is not signaled, or 0.
    :param memory: reads the GPUs' memory; None if nothing can.
    :param tools: print native stacks; None if nobody is to be asked for them.
    :param keeping: says which cores are kept; None if none are.
    """

    def __init__(
        self,
        link: Link,
        starts: Starts,
        stream: bool,
        unsafe: str = "",
        controller: int = 0,
        memory: GpuMemory | None = None,
        tools: Tools | None = None,
        keeping: Keeping | None = None,
    ) -> None:
        self._link = link
        self._starts = starts
        self._unsafe = unsafe
        self._orders: deque[Run | RunTogether | Follows | Finish] = deque()
        self._awaits_new_orders = False
        self._supervisor = Supervisor(link, self._handle_order, stream, controller, tools, keeping)
        self._spare = Spare(self._supervisor, self._spawn)
        self._memory = MemoryWait(self._supervisor, memory)
        self._supervisor.on_gpu_user_end = self._memory.expect_release

    def main(self) -> Role:
        """The keeper's role: serve the worker until it is gone, then end everything below."""
        status = 0
        try:
            self._supervisor.start()
            yield from self._serve()
        except WorkerGoneError:
            pass
        except MessageLostError:
            status = DEAF
        except BaseException as error:  # noqa: BLE001 (reported on the worker's standard error)
            os.write(2, f"{stack_text(error)}\n".encode("utf-8", "replace"))
            status = FAILED
        self._supervisor.end_everything()
        return status

    # --- orders of the worker ---

    def _serve(self) -> Generator[Fork, int, None]:
        while True:
            for message in self._link.take_messages():
                self._supervisor.handle(message)
            if not self._orders:
                self._supervisor.poll(1.0)
                continue
            order = self._orders.popleft()
            if isinstance(order, Finish):
                self._finish(order.timeout)
            elif isinstance(order, Follows):
                self._follow(order)
            else:
                last = order if isinstance(order, Run) else order.run
                yield from self._run(order, last)

    def _handle_order(self, message: Message) -> None:
        if isinstance(message, (Run, RunTogether)):
            if not self._awaits_new_orders:
                self._orders.append(message)
        elif isinstance(message, Follows):
            self._orders.append(message)
        elif isinstance(message, Finish):
            self._orders.clear()  # of tests that were ordered ahead
            self._orders.append(message)
        elif isinstance(message, OrderAnew):
            self._awaits_new_orders = False
        elif isinstance(message, Broken):
            self._starts.remember(message)
        elif isinstance(message, Stop):
            self._stop(message)

    def _stop(self, message: Stop) -> None:
        now = time.monotonic()
        supervisor, rest = self._supervisor, message.grace - message.drain
        supervisor.stop_deadline = now + message.grace
        # A test that ignores SIGINT must leave wide fixtures time for their teardown.
        supervisor.stop_tests_deadline = now + message.drain + rest / 2
        supervisor.interrupt_at = None
        if supervisor.job is None:
            if not self._memory.is_waiting:  # else _run or _follow finishes after the wait
                self._finish(message.grace)
        elif message.drain:
            supervisor.interrupt_later(now + message.drain)
        elif supervisor.job.runs_user_code:
            send_signal(supervisor.job.process, signal.SIGINT)

    def _run(self, order: Run | RunTogether, run: Run) -> Generator[Fork, int, None]:
        """Execute an order and report its end; `run` is the last test of the order."""
        self._memory.prepare(run)
        unmet = self._memory.await_needed(run)
        if self._supervisor.stop_deadline is not None:
            # Stop arrived while this order was queued, or waited for GPU memory.
            self._report_end(Ended(Lost("the run was stopped")))
            self._finish(0.0)
            return
        if unmet:
            self._refuse(run, Unmet(unmet))
            return
        if self._unsafe and not run.key.is_spawned:
            self._report_end(Ended(ForkUnsafe(self._unsafe)))
            return
        try:
            job = yield from self._execute(order, run)
        except RefusedError as error:
            self._refuse(run, Lost(str(error)))
            return
        failed = job.ending != Finished() and job.verdict is None
        if failed and job.host.was_spare and job.stage == "start":
            # It collected while another process ran the same module, which may be why it failed.
            job = yield from self._execute(order, run)
        if isinstance(order, RunTogether) and job.ran:
            run = order.at(job.ran - 1)
        for released in self._release(run, job.host):
            job.absorb(released)
        self._supervisor.orphans.await_gpu_release(job)
        self._supervisor.job = None
        gpu_memory = self._memory.await_returned()
        stops = job.stops or self._supervisor.stop_deadline is not None
        goes_on = job.ending == Finished() and not stops
        if run.key.is_shared:
            ordered = len(order.tests) if isinstance(order, RunTogether) else 1
            goes_on &= job.ran == ordered and not (job.host.retire or job.awaits_judgment)
        self._report_end(job.ended()._replace(goes_on=goes_on, gpu_memory=gpu_memory))
        self._finish_if_stopped()

    def _refuse(self, run: Run, ending: Ending) -> None:
        """Report a test for which there is no process; hosts tear down as after it."""
        list(self._release(run))
        self._report_end(Ended(ending))
        self._finish_if_stopped()

    def _report_end(self, ended: Ended) -> None:
        if not ended.goes_on:
            kept = (each for each in self._orders if isinstance(each, (Finish, Follows)))
            self._orders = deque(kept)
            self._awaits_new_orders = True
        self._supervisor.send(ended)

    def _execute(self, order: Run | RunTogether, run: Run) -> Generator[Fork, int, Job]:
        host = yield from self._host(run if isinstance(order, Run) else order.at(0))
        job = self._supervisor.job = Job(run, host, isinstance(order, RunTogether))
        if job.together:
            self._supervisor.set_clock(job, run.timeout)
            job.host.progress.begin()
        else:
            # Until the host's first message; a fresh interpreter has to collect before it.
            job.stage = "start"
            collects = run.key.is_spawned
            self._supervisor.set_clock(
                job,
                start_limit(run.timeout) if collects else run.timeout,
                "" if collects else "begin",
            )
        self._supervisor.on_test_start = lambda: self._spare.warm(run)
        self._supervisor.send_to_host(job.host, order)
        self._supervisor.wait_for(job)
        return job

    def _finish_if_stopped(self) -> None:
        if self._supervisor.stop_deadline is not None:
            self._finish(max(0.0, self._supervisor.stop_deadline - time.monotonic()))

    def _host(self, run: Run) -> Generator[Fork, int, HostProcess]:
        """Find the host for a test, or start one.

        :raises RefusedError: if a limit of the machine forbids another process.
        """
        for host in self._supervisor.hosts:
            if host.key == run.key:
                return host
        start = HostStart(run.key, run.position, artifacts=run.artifacts)
        try:
            host = self._spare.claim(run) or (yield from self._new_host(start))
        except (OSError, MemoryError) as error:
            raise RefusedError(f"no process could be made for it: {refusal(error)}") from error
        self._supervisor.hosts.append(host)
        if run.key.is_shared:
            self._supervisor.send_files(HostFiles(run.key, host.pid), host.files)
        return host

    def _new_host(self, start: HostStart) -> Generator[Fork, int, HostProcess]:
        if start.key.is_spawned:
            return self._spawn(start)
        keeper_end, host_end = _connect(start)
        try:
            pid = yield Fork(self._begin_host(start, keeper_end, host_end, os.getpid()))
        except OSError:
            keeper_end.close()
            raise
        finally:
            host_end.link.close()
        return HostProcess(pid, keeper_end, start)

    def _begin_host(
        self, start: HostStart, keeper_end: HostConnection, host_end: HostConnection, keeper: int
    ) -> Role:
        """The role of a new host: close what is the keeper's, then serve."""
        self._close_in_host(keeper_end)
        return (yield from self._starts.fork(start, host_end, keeper))

    def _close_in_host(self, keeper_end: HostConnection) -> None:
        self._supervisor.leave()
        self._memory.close()
        keeper_end.link.close()
        os.close(self._link.fileno())

    def _spawn(self, start: HostStart) -> HostProcess:
        """Spawn a host, forked right here without a :class:`Fork` step: exec drops the stack."""
        keeper_end, host_end = _connect(start)
        keeper = os.getpid()
        try:
            pid = fork()
        except OSError:
            keeper_end.close()
            host_end.link.close()
            raise
        if pid == 0:
            self._close_in_host(keeper_end)
            self._starts.spawn(start, host_end, keeper)
        host_end.link.close()
        return HostProcess(pid, keeper_end, start)

    def _follow(self, order: Follows) -> None:
        run = Run(0, order.next_position, next_key=order.next_key, timeout=order.timeout)
        self._report_end(self._torn_down(list(self._release(run))))
        self._finish_if_stopped()

    def _torn_down(self, jobs: list[Job]) -> Ended:
        """How these teardowns ended, as one."""
        ended = Ended(Finished(), goes_on=True)
        bad = next((job for job in jobs if job.ending != Finished()), None)
        if bad is not None:
            ended = bad.ended()._replace(wide="teardown")
        leftovers = tuple(text for job in jobs for text in job.leftovers)
        return ended._replace(leftovers=leftovers, gpu_memory=self._memory.await_returned())

    def _release(self, run: Run, ran: HostProcess | None = None) -> Iterator[Job]:
        """Have each host tear down what the next test does not share, or end.

        :param ran: the host that ran the last test, and so has done its teardown.
        """
        for host in self._last_first():
            over = host.key.ends_before(run.next_key, run.position)
            over = over or host.retire or run.next_position < 0
            if not over and host is not ran:
                yield self._command(host, Release(run.next_position), run)
                over = host in self._supervisor.hosts and host.retire  # the command may change both
            if over:
                yield self._command(host, Finish(run.timeout), run)

    def _last_first(self) -> list[HostProcess]:
        """The hosts in the order in which they tear down: the fixtures set up last go first."""
        return self._supervisor.hosts[::-1]

    def _command(self, host: HostProcess, command: Message, run: Run) -> Job:
        """Send Release or Finish to an idle host, and wait until it has obeyed."""
        job = Job(run, host)
        job.stage = "teardown"
        self._supervisor.set_clock(job, run.timeout, "begin to tear down")
        outer, self._supervisor.job = self._supervisor.job, job
        self._supervisor.send_to_host(host, command)
        self._supervisor.wait_for(job)
        if isinstance(command, Finish):
            self._supervisor.await_exit(host, job)
        self._supervisor.job = outer
        return job

    def _finish(self, timeout: float) -> None:
        """End all hosts, each after its teardown within `timeout` seconds, and report TornDown."""
        self._spare.end()
        run = Run(0, -1, timeout=timeout)
        jobs = [self._command(host, Finish(timeout), run) for host in self._last_first()]
        self._supervisor.send(TornDown(self._torn_down(jobs)))


def _connect(start: HostStart) -> tuple[HostConnection, HostConnection]:
    """Create what connects a new host with the keeper: the keeper's end and the host's.

    :raises OSError: if a limit of the machine forbids it.
    """
    made: list[Files] = []
    keeper_end, host_end = Pipes.pair()
    try:
        for _ in range(1 if start.key.is_shared else 1 + CHILDREN):
            made.append(Files.create())
        files, *sets = made
        shared = Progress(), tuple(announced_exits(1 + len(sets)))
    except OSError:
        keeper_end.close()
        host_end.close()
        for each in made:
            each.close()
        raise
    return HostConnection(keeper_end, files, tuple(sets), *shared), HostConnection(
        host_end, files, tuple(sets), *shared
    )
