"""The process that forks hosts, keeps the clock, waits and kills; it never runs user code."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import Callable, NoReturn

from .. import system
from ..endings import (
    Ending,
    Exited,
    Finished,
    Lost,
    MemoryExceeded,
    Signaled,
    TimedOut,
    from_wait_status,
    to_wire,
)
from ..messages import (
    Began,
    Broken,
    ChildExited,
    Completed,
    Ended,
    Events,
    Finish,
    Forked,
    HostDone,
    Message,
    Output,
    Proceed,
    Release,
    Restarted,
    Run,
    Stop,
    TornDown,
    WideSetUp,
)
from ..wire import pack, whole_frames
from .copies import fork
from .descriptors import Files, Link, ends_with, move_up, read_from
from .jobs import ChildProcess, HostProcess, Job
from .relay import CHANNEL_LOST
from .tree import DUMP_SIGNAL, Settled, is_alive, kill_tree, send_signal

# Seconds.
TICK = 0.1  # between looks at a test that is running
MEMORY_TICK = 0.02  # the same where a memory limit is set
DUMP_WAIT = 0.2  # for faulthandler to write the stacks of all threads
TERM_GRACE = 2.0  # between SIGTERM and SIGKILL
KILL_WAIT = 2.0  # for SIGKILL to take effect
LEFTOVER_GRACE = 0.1  # for processes of an ended test to end by themselves

_FINISHED = pack(Completed())


class WorkerGoneError(Exception):
    """The worker died or let go of us."""


class Keeper:
    """Serves one worker.

    :param link: to the worker.
    :param host_main: what a new host runs, with the name under which tests share it, its link,
        its files and the keeper's pid.
    :param remember: called with each :class:`Broken`, for hosts forked later.
    :param stream: whether output is passed on while it is written.
    :param controller: pid to watch where the kernel does not tell of its death, or 0.
    """

    def __init__(
        self,
        link: Link,
        host_main: Callable[[str, Link, Files, int], NoReturn],
        remember: Callable[[Broken], None],
        stream: bool,
        controller: int = 0,
    ) -> None:
        self._link = link
        self._host_main = host_main
        self._remember = remember
        self._stream = stream
        self._controller = controller
        self._hosts: list[HostProcess] = []
        self._job: Job | None = None
        self._abandoned: set[int] = set()
        self._stop_deadline: float | None = None
        self._stop_tests_deadline = 0.0
        self._oom_kills = system.oom_kills()

    def main(self) -> NoReturn:
        """Called in the new process, which has been set up by :mod:`.startup`."""
        status = 0
        try:
            self._sigchld_handler = signal.getsignal(signal.SIGCHLD)
            self._wakeup = _wake_on_child_exit()
            self._serve()
        except WorkerGoneError:
            status = 0
        except BaseException:  # noqa: BLE001 (the worker's standard error is the place to tell)
            import traceback

            traceback.print_exc()
            status = 70  # EX_SOFTWARE
        finally:
            self._end_everything()
            os._exit(status)

    # --- what the worker asks for ---

    def _serve(self) -> None:
        while True:
            messages = self._link.take_messages()
            if not messages:
                self._poll(1.0)
                continue
            for message in messages:
                self._obey(message)

    def _obey(self, message: Message) -> None:
        if isinstance(message, Run):
            self._run(message)
        elif isinstance(message, Finish):
            self._finish(message.timeout)
        elif isinstance(message, Broken):
            self._remember(message)
        elif isinstance(message, Stop):
            now = time.monotonic()
            self._stop_deadline = now + message.grace
            # A test that does not go by itself must leave wide fixtures time for their teardown.
            self._stop_tests_deadline = now + message.grace / 2
            if self._job is None:
                self._finish(message.grace)
            else:
                send_signal(self._job.process, signal.SIGINT)

    def _run(self, run: Run) -> None:
        if self._stop_deadline is not None:
            # The order to stop overtook this one.
            self._send(Ended(to_wire(Lost("the run was stopped"))))
            self._finish(0.0)
            return
        job = self._job = Job(run, self._host(run.share))
        # Until the host says what it does: a fresh interpreter has to collect first.
        job.stage = "start"
        self._set_clock(job, run.wide_timeout)
        self._tell(job.host, run)
        self._wait_for(job)
        self._release_others(job)
        self._job = None
        assert job.ending is not None
        self._send(
            Ended(
                to_wire(job.ending), job.pid, job.wide, *job.remains[:3], job.dump,
                job.leftovers, job.survivors,
            )
        )  # fmt: skip
        self._finish_if_stopped()

    def _finish_if_stopped(self) -> None:
        if self._stop_deadline is not None:
            self._finish(max(0.0, self._stop_deadline - time.monotonic()))

    def _host(self, share: str) -> HostProcess:
        for host in self._hosts:
            if host.share == share:
                return host
        ours, theirs = Link.pair()
        files = Files.create()
        keeper = os.getpid()
        pid = fork()
        if pid == 0:
            self._leave_host(ours)
            self._host_main(share, theirs, files, keeper)
        theirs.close()
        host = HostProcess(pid, ours, files, share)
        self._hosts.append(host)
        return host

    def _leave_host(self, ours: Link) -> None:
        """In a new host: undo what only the keeper needs."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, self._sigchld_handler)
        for descriptor in (*self._wakeup, self._link.fileno(), ours.fileno()):
            os.close(descriptor)
        for host in self._hosts:
            for descriptor in (host.link.fileno(), *host.files):
                if descriptor >= 0:  # a closed socket's is -1
                    os.close(descriptor)

    def _release_others(self, job: Job) -> None:
        """Have idle hosts tear down what the next test does not share, or end."""
        run = job.run
        for host in list(self._hosts):
            scoped = host.share.startswith(("class:", "module:", "spawn:"))
            over = scoped and host.share != run.next_share
            if over or host.retire or run.next_position < 0:
                job.absorb(self._command(host, Finish(run.wide_timeout), run))
            elif host is not job.host:
                job.absorb(self._command(host, Release(run.next_position), run))

    def _command(self, host: HostProcess, command: Message, run: Run) -> Job:
        """Have an idle host tear down."""
        job = Job(run, host)
        job.stage = "teardown"
        self._set_clock(job, run.wide_timeout)
        outer, self._job = self._job, job
        self._tell(host, command)
        self._wait_for(job)
        self._job = outer
        if isinstance(command, Finish):
            self._await_exit(host, job)
        return job

    def _finish(self, timeout: float) -> None:
        """Tear everything down."""
        run = Run(0, -1, "", "", 0.0, timeout, 0, 0)
        endings = [self._command(host, Finish(timeout), run) for host in list(self._hosts)]
        bad = [job for job in endings if job.ending != Finished()]
        leftovers = tuple(text for job in endings for text in job.leftovers)
        if bad:
            assert bad[0].ending is not None
            remains = bad[0].remains._replace(dump=bad[0].dump)
            self._send(TornDown(to_wire(bad[0].ending), *remains, leftovers))
        else:
            self._send(TornDown(to_wire(Finished()), leftovers=leftovers))

    def _await_exit(self, host: HostProcess, job: Job) -> None:
        """Wait for a host that was told to finish, and for what it started."""
        if host not in self._hosts:
            return
        if not self._until(lambda: host.status is not None, self._term_grace()):
            kill_tree(host.pid)
            self._until(lambda: host.status is not None, KILL_WAIT)
        job.leftovers += self._sweep(host)
        if host in self._hosts:
            self._hosts.remove(host)
            host.close()

    # --- while something is running ---

    def _wait_for(self, job: Job) -> None:
        while not job.done:
            wait = MEMORY_TICK if job.run.memory_limit else TICK
            if job.deadline is not None:
                wait = max(0.0, min(wait, job.deadline - time.monotonic()))
            self._poll(wait)
            self._look_after(job)

    def _look_after(self, job: Job) -> None:
        if job.done:
            return
        if self._stop_deadline is not None:
            testing = job.child is not None or (job.run.share and not job.stage)
            deadline = self._stop_tests_deadline if testing else self._stop_deadline
            if time.monotonic() > deadline:
                self._end_process(job, Lost("the run was stopped"))
        self._forward(job)
        self._check_limits(job)

    def _check_limits(self, job: Job) -> None:
        if job.verdict is not None:
            return
        if job.deadline is not None and time.monotonic() >= job.deadline:
            state = system.process_state(job.process)
            self._end_process(job, TimedOut(job.limit, state))
        elif job.run.memory_limit and job.inherited_memory is not None:
            used = system.tree_memory(job.process, job.inherited_memory, job.run.memory_limit)
            job.peak_memory = max(job.peak_memory, used)
            if used > job.run.memory_limit:
                self._end_process(job, MemoryExceeded(job.run.memory_limit, job.peak_memory))

    def _end_process(self, job: Job, verdict: Ending) -> None:
        """Fix the verdict, get the stacks, and end the process and all below it."""
        if job.verdict is not None:
            return
        self._forward(job)
        job.verdict = verdict
        pid = job.process
        ended = self._is_over(job)
        files = job.child.files if job.child is not None else job.host.files
        # The process may end while we wait, and its files be closed.
        dump = os.dup(files.dump)
        try:
            before = os.fstat(dump).st_size
            settled = Settled(dump, before)
            send_signal(pid, DUMP_SIGNAL)
            send_signal(pid, signal.SIGCONT)
            self._until(lambda: ended() or settled(), DUMP_WAIT)
            job.dump = job.dump or read_from(dump, before)
        finally:
            os.close(dump)
        tree = [pid, *system.descendants(pid)]
        for process in tree:
            send_signal(process, signal.SIGTERM)
        if not self._until(ended, self._term_grace()):
            kill_tree(pid)
            if not self._until(ended, KILL_WAIT):
                self._abandon(job, pid)
        for process in tree[1:]:
            if system.process_state(process) not in ("", "Z"):
                kill_tree(process)

    def _term_grace(self) -> float:
        if self._stop_deadline is None:
            return TERM_GRACE
        return max(0.0, min(TERM_GRACE, self._stop_deadline - time.monotonic()))

    def _is_over(self, job: Job) -> Callable[[], bool]:
        child = job.child
        if child is not None:
            return lambda: job.child is not child or job.done
        return lambda: job.done

    def _abandon(self, job: Job, pid: int) -> None:
        """Go on without a process that not even SIGKILL ends, and without its host."""
        job.survivors += (system.describe(pid),)
        self._abandoned.add(pid)
        kill_tree(job.host.pid)
        if not self._until(lambda: job.done, KILL_WAIT):
            self._abandoned.add(job.host.pid)
            self._hosts.remove(job.host)
            job.conclude(job.verdict or Lost("it can't be ended"), pid)
            job.done = True

    def _forward(self, job: Job) -> None:
        """Pass on what the test process wrote since the last look."""
        if job.verdict is not None:
            return
        source = job.child if job.child is not None else job.host
        data = read_from(source.files.events, source.events_read)
        data = data[: whole_frames(data)]
        if data:
            source.events_read += len(data)
            self._send(Events(data))
        if self._stream:
            for position, descriptor in enumerate((source.files.out, source.files.err)):
                text = read_from(descriptor, source.output_read[position])
                if text:
                    source.output_read[position] += len(text)
                    self._send(Output(position + 1, text))

    # --- what happens ---

    def _poll(self, wait: float) -> None:
        """Wait for something to happen, `wait` seconds at most, and take it in."""
        poller = select.poll()
        poller.register(self._link.fileno(), select.POLLIN)
        poller.register(self._wakeup[0], select.POLLIN)
        for host in self._hosts:
            if not host.link.closed:
                poller.register(host.link.fileno(), select.POLLIN)
        ready = {descriptor for descriptor, _ in poller.poll(wait * 1000)}
        self._hear_worker(ready)
        for host in list(self._hosts):
            if not host.link.closed and host.link.fileno() in ready:
                host.link.read()
            for message in host.link.take_messages():
                self._heard(host, message)
        if self._wakeup[0] in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakeup[0], 4096)
            self._reap()

    def _hear_worker(self, ready: set[int]) -> None:
        if self._link.fileno() in ready and not self._link.read():
            raise WorkerGoneError
        if self._controller and not is_alive(self._controller):
            raise WorkerGoneError
        if self._job is not None:
            for message in self._link.take_messages():
                self._obey(message)

    def _heard(self, host: HostProcess, message: Message) -> None:
        job = self._job
        if job is None or job.host is not host:
            return
        if isinstance(message, Forked):
            self._forward(job)  # what the host wrote comes before what the child will write
            job.child = ChildProcess(message.pid, host.link.take_files())
            self._test_begins(job, "")
            if self._stop_deadline is not None:
                send_signal(message.pid, signal.SIGINT)
        elif isinstance(message, ChildExited):
            self._child_exited(job, message)
        elif isinstance(message, Began) and message.what == "test":
            self._test_begins(job, "")
        elif isinstance(message, Began):
            job.stage = message.what
            job.inherited_memory = None
            self._set_clock(job, job.run.wide_timeout)
        elif isinstance(message, WideSetUp):
            self._note_daemons(host)
            self._tell(host, Proceed())
        elif isinstance(message, HostDone):
            host.retire = message.retire
            self._host_done(job)

    def _note_daemons(self, host: HostProcess) -> None:
        """Take what became ours while wide fixtures were set up for part of these."""
        host.daemons |= system.adopted_children(self._known())

    def _test_begins(self, job: Job, stage: str) -> None:
        job.stage = stage
        self._set_clock(job, job.run.timeout)
        if job.run.memory_limit:
            job.inherited_memory = system.process_memory(job.host.pid)

    def _set_clock(self, job: Job, limit: float) -> None:
        job.limit = limit
        job.deadline = time.monotonic() + limit if limit else None

    def _child_exited(self, job: Job, message: ChildExited) -> None:
        child = job.child
        assert child is not None
        job.inherited_memory = None
        self._abandoned.discard(child.pid)
        if message.leaves and job.verdict is None:
            if child.events_read:
                self._send(Restarted())
        else:
            self._forward(job)
            job.deadline = None
            if job.verdict is None and ends_with(child.files.events, _FINISHED):
                job.conclude(Finished(), child.pid)
            else:
                ending = job.verdict or self._ending(message.status)
                job.conclude(ending, child.pid, child.remains())
            job.verdict = None  # the host, which goes on, has a clock of its own
            job.leftovers += self._sweep(job.host, child.pid)
        child.files.close()
        job.child = None

    def _ending(self, status: int) -> Ending:
        kills = system.oom_kills()
        out_of_memory, self._oom_kills = kills > self._oom_kills, kills
        ending = from_wait_status(status)
        if isinstance(ending, Signaled) and ending.signal == signal.SIGKILL:
            return Signaled(ending.signal, ending.core_dumped, out_of_memory)
        if isinstance(ending, Exited) and ending.status == CHANNEL_LOST:
            return Lost("it closed the descriptor by which its reports are sent")
        return ending

    def _host_done(self, job: Job) -> None:
        self._forward(job)
        host = job.host
        if job.stage in ("setup", "teardown"):
            self._note_daemons(host)
        os.ftruncate(host.files.events, 0)
        host.events_read = 0
        if self._stream:
            for position, descriptor in enumerate((host.files.out, host.files.err)):
                os.ftruncate(descriptor, 0)
                host.output_read[position] = 0
        if job.ending is None:
            job.conclude(job.verdict or Finished(), host.pid)
        job.done = True

    def _reap(self) -> None:
        for host in list(self._hosts):
            if host.status is None:
                pid, status = os.waitpid(host.pid, os.WNOHANG)
                if pid:
                    host.status = status
                    self._host_died(host)
        self._reap_adopted()

    def _reap_adopted(self) -> None:
        for pid in system.adopted_children(self._known()) | self._abandoned:
            with contextlib.suppress(ChildProcessError):  # not ours, after all
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self._abandoned.discard(pid)

    def _known(self) -> set[int]:
        return {host.pid for host in self._hosts if host.status is None} | self._abandoned

    def _host_died(self, host: HostProcess) -> None:
        # Messages it sent before may still be there. Not up to the end of the stream: a process
        # that a fixture started may hold the other end.
        while not host.link.closed and host.link.is_readable(0.0) and host.link.read():
            pass
        for message in host.link.take_messages():
            self._heard(host, message)
        self._hosts.remove(host)
        job = self._job
        if job is not None and job.host is host and not job.done:
            self._forward(job)
            if job.child is not None:
                self._lose_child(job, job.child)
            else:
                assert host.status is not None
                ending = job.verdict or self._ending(host.status)
                job.conclude(ending, host.pid, host.remains())
            job.leftovers += self._sweep(host)
            job.done = True
        host.close()

    def _lose_child(self, job: Job, child: ChildProcess) -> None:
        """The host died while a test was running in a child of its own."""
        assert job.host.status is not None
        kill_tree(child.pid)
        reason = f"its host process {_how(job.host.status)} while the test was running"
        job.conclude(job.verdict or Lost(reason), child.pid, child.remains())
        child.files.close()
        job.child = None

    # --- what is left ---

    def _sweep(self, host: HostProcess, child: int = 0) -> tuple[str, ...]:
        """End what a test, or a host that is gone, left running.

        :param child: the test's process; what fixtures of the host started is spared then.
        :return: what had to be ended.
        """
        spared = host.daemons if child else set()
        known = self._known() | spared

        def left() -> set[int]:
            # Not when SIGCHLD says so: that may be the signal that brought us here.
            self._reap_adopted()
            others = {
                daemon for other in self._hosts if other is not host for daemon in other.daemons
            }
            found = system.adopted_children(known | others)
            if system.PORTABLE:
                found |= set(system.descendants(child or host.pid))
            return found

        if not left() or self._until(lambda: not left(), LEFTOVER_GRACE):
            return ()
        named: list[str] = []
        deadline = time.monotonic() + KILL_WAIT
        while time.monotonic() < deadline:
            found = left()
            if not found:
                break
            for pid in found:
                if system.process_state(pid) == "Z":
                    continue
                for process in [pid, *system.descendants(pid)]:
                    text = system.describe(process)
                    if text.split(" ", 2)[1] not in {name.split(" ", 2)[1] for name in named}:
                        named.append(text)
                kill_tree(pid)
            self._until(lambda: not left(), 0.05)
        self._abandoned |= left()
        return tuple(named)

    def _end_everything(self) -> None:
        for host in self._hosts:
            if host.status is None:
                kill_tree(host.pid)
            if self._job is not None and self._job.child is not None:
                kill_tree(self._job.child.pid)
        deadline = time.monotonic() + KILL_WAIT
        while time.monotonic() < deadline:
            pids = system.adopted_children(set())
            for pid in pids:
                kill_tree(pid)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            select.select([], [], [], 0.01)

    def _until(self, true: Callable[[], bool], limit: float) -> bool:
        """Wait until something is true, `limit` seconds at most; whether it is."""
        deadline = time.monotonic() + limit
        while not true():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._poll(min(left, 0.01))
        return True

    def _tell(self, host: HostProcess, message: Message) -> None:
        with contextlib.suppress(OSError):  # it is dead; its exit tells
            host.link.send(message)

    def _send(self, message: Message) -> None:
        try:
            self._link.send(message)
        except OSError as error:
            raise WorkerGoneError from error


def _wake_on_child_exit() -> tuple[int, int]:
    """A pipe that becomes readable when a child ends."""
    reader, writer = (move_up(end) for end in os.pipe())
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader, writer


def _how(status: int) -> str:
    ending = from_wait_status(status)
    if isinstance(ending, Exited):
        return f"exited with status {ending.status}"
    return f"was ended by {ending.title}"
