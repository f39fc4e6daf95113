"""What the keeper does while something runs below it: hears, keeps the clock, waits and kills."""

from __future__ import annotations

from typing import Callable, Iterator

from ... import system
from ...own import contextmanager, os, own_builtins, select, signal, suppress, time
from ...protocol.channels import Link
from ...protocol.descriptors import Files, move_up, read_from
from ...protocol.endings import (
    ITS_END,
    Ending,
    Exited,
    Finished,
    Lost,
    MemoryExceeded,
    Signaled,
    TimedOut,
    Unreported,
    from_wait_status,
)
from ...protocol.event_file import Completed
from ...protocol.messages import (
    Began,
    Broken,
    ChildExited,
    Events,
    Forked,
    HostDone,
    Message,
    Output,
    Ping,
    Pong,
    Proceed,
    Ready,
    Restarted,
    WideSetUp,
)
from ...protocol.wire import unpack
from ...system.limits import raise_soft, refusal_of, restore
from ..child.child import DONE, IN_ORDER, STOPS
from ..child.usage import Account, reap
from ..process.excerpts import chunks, free_middle, free_until
from ..process.relay import UNREPORTED
from ..process.tree import DUMP_SIGNAL, Settled, end_children, is_alive, kill_tree, send_signal
from ..process.wide_fixtures import HOOKS
from .jobs import ChildProcess, HostProcess, Job
from .orphans import KILL_WAIT, Orphans

own_builtins(globals())

# Seconds.
TICK = 0.1  # between looks at a test that is running
MEMORY_TICK = 0.02  # the same where a memory limit is set
DUMP_WAIT = 0.2  # for faulthandler to write the stacks of all threads
TERM_GRACE = 2.0  # between SIGTERM and SIGKILL


class WorkerGoneError(Exception):
    """The worker died or let go of us."""


class DeafError(Exception):
    """Something that the worker said is missing."""


class Supervisor:
    """Looks after hosts, and after one test at a time.

    :param link: to the worker.
    :param obey: called with what the worker says while a test runs.
    :param stream: whether output is passed on while it is written.
    :param controller: pid to watch where the kernel does not tell of its death, or 0.
    """

    def __init__(
        self, link: Link, obey: Callable[[Message], None], stream: bool, controller: int
    ) -> None:
        self._link = link
        self._obey = obey
        self._stream = stream
        self._controller = controller
        self._oom_kills = system.oom_kills()
        self._looked = 0.0  # when what tests wrote was last passed on before their end
        self.hosts: list[HostProcess] = []
        self.spares: list[HostProcess] = []
        """Hosts that no test was given to yet."""
        self.orphans = Orphans(self.hosts, self.spares, self.until)
        self.at_test: Callable[[], None] = lambda: None
        """Called when a test begins to run."""
        self.may_have_had_gpus: Callable[[], None] = lambda: None
        """Called when a process of a test has ended that may have had GPUs open."""
        self.orphans.at_end = lambda: self.may_have_had_gpus()
        self.job: Job | None = None
        self.stop_deadline: float | None = None
        self.stop_tests_deadline = 0.0

    def start(self) -> None:
        """In the keeper's process: meet no soft limit, and be woken when a child ends."""
        self._limits = raise_soft()
        self._sigchld_handler = signal.getsignal(signal.SIGCHLD)
        self._wakeup = _wake_on_child_exit()

    def leave(self) -> None:
        """In a new host: undo :meth:`start`, and let go of all other hosts."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, self._sigchld_handler)
        for descriptor in self._wakeup:
            os.close(descriptor)
        for host in (*self.hosts, *self.spares):
            host.close()
        restore(self._limits)

    # --- while something is running ---

    def wait_for(self, job: Job) -> None:
        """Look after a test until it is over and its host idle."""
        while not job.done:
            wait = MEMORY_TICK if job.run.memory_limit else TICK
            if job.together and job.limit:
                job.deadline = job.host.progress.began() + job.limit
            if job.deadline is not None:
                wait = max(0.0, min(wait, job.deadline - time.monotonic()))
            self.poll(wait)
            self._look_after(job)

    def _look_after(self, job: Job) -> None:
        if job.done:
            return
        if self.stop_deadline is not None:
            testing = job.child is not None or (job.run.share and not job.stage)
            deadline = self.stop_tests_deadline if testing else self.stop_deadline
            if time.monotonic() > deadline:
                self._end_process(job, Lost("the run was stopped"))
                return
        if time.monotonic() >= self._looked + TICK:  # not as often as something happens
            self._looked = time.monotonic()
            self._forward(job)
            self._free_output(job)
        self._check_limits(job)

    def _check_limits(self, job: Job) -> None:
        if job.verdict is not None:
            return
        if job.deadline is not None and time.monotonic() >= job.deadline:
            self._end_process(job, self._too_late(job))
        elif job.run.memory_limit and job.inherited_memory is not None:
            used = system.tree_memory(job.process, job.inherited_memory, job.run.memory_limit)
            job.peak_memory = max(job.peak_memory, used)
            if used > job.run.memory_limit:
                self._end_process(job, MemoryExceeded(job.run.memory_limit, job.peak_memory))

    def _too_late(self, job: Job) -> Ending:
        self._forward(job)
        awaits = job.awaits
        if job.child is None and not job.stage and job.host.completed:
            awaits = "say that it is done"
        if awaits:
            return Lost(f"its host process did not {awaits} within {job.limit:g} s")
        state = system.process_state(job.process)
        if job.child is not None and state in ("", "Z"):
            return Lost(f"its host process did not say how it ended, within {job.limit:g} s")
        silent = job.child is not None and not job.child.events_read
        return TimedOut(job.limit, state, silent)

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
            self.until(lambda: ended() or settled(), DUMP_WAIT)
            job.dump = job.dump or read_from(dump, before)
        finally:
            os.close(dump)
        tree = [pid, *system.descendants(pid)]
        for process in tree:
            send_signal(process, signal.SIGTERM)
        if not self.until(ended, self._term_grace()):
            kill_tree(pid)
            if not self.until(ended, KILL_WAIT):
                self._abandon(job, pid)
        for process in tree[1:]:
            if system.process_state(process) not in ("", "Z"):
                kill_tree(process)

    def _term_grace(self) -> float:
        if self.stop_deadline is None:
            return TERM_GRACE
        return max(0.0, min(TERM_GRACE, self.stop_deadline - time.monotonic()))

    def _is_over(self, job: Job) -> Callable[[], bool]:
        child = job.child
        if child is not None:
            return lambda: job.child is not child or job.done
        return lambda: job.done

    def _abandon(self, job: Job, pid: int) -> None:
        """Go on without a process that not even SIGKILL ends, and without its host."""
        job.survivors += (system.describe(pid),)
        self.orphans.abandon(pid)
        kill_tree(job.host.pid)
        if not self.until(lambda: job.done, KILL_WAIT):
            self.orphans.abandon(job.host.pid)
            self.hosts.remove(job.host)
            job.host.close()
            job.conclude(job.verdict or Lost("it can't be ended"), pid)
            job.done = True

    def _forward(self, job: Job, end: int | None = None) -> None:
        """Pass on what the test process wrote since the last look.

        :param end: of this, in its event file.
        """
        if job.verdict is not None:
            return
        source = job.child if job.child is not None else job.host
        data = read_from(source.files.events, source.events_read)
        if end is not None:
            data = data[: max(0, end - source.events_read)]
        source.events_read += len(data)
        frames = source.events.feed(data)
        if frames:
            source.completed = isinstance(unpack(frames[-1])[-1], Completed)
            # Most often the end of the test follows at once.
            self._link.hold(Events(b"".join(frames), source.pid))
        if self._stream:
            for position, descriptor in enumerate((source.files.out, source.files.err)):
                begin = source.output_read[position]
                end = source.output_read[position] = os.fstat(descriptor).st_size
                for text in chunks(descriptor, begin, end):
                    self.send(Output(position + 1, text))

    def _free_output(self, job: Job) -> None:
        """Have no more of the output in memory than will be asked for."""
        source = job.child if job.child is not None else job.host
        if self._stream:
            for descriptor, end in zip((source.files.out, source.files.err), source.output_read):
                free_until(descriptor, end)
        else:
            free_middle(source.files.out)
            free_middle(source.files.err)
        free_middle(source.files.log)

    # --- what happens ---

    def poll(self, wait: float) -> None:
        """Wait for something to happen, `wait` seconds at most, and take it in."""
        with _worker_there():
            self._link.flush()
        poller = select.poll()
        poller.register(self._link.fileno(), select.POLLIN)
        poller.register(self._wakeup[0], select.POLLIN)
        for host in self.hosts:
            if not host.link.closed:
                poller.register(host.link.fileno(), select.POLLIN)
        ready = {descriptor for descriptor, _ in poller.poll(wait * 1000)}
        self._hear_worker(ready)
        for host in list(self.hosts):
            if not host.link.closed and host.link.fileno() in ready:
                host.link.read()
            self._hear(host)
            if host.link.closed and host.link.trouble and host.status is None:
                self._distrust(host)
        if self._wakeup[0] in ready:
            with suppress(BlockingIOError):
                os.read(self._wakeup[0], 4096)
            self._reap()

    def attend(self) -> None:
        """Take in what has happened, and do what the worker says, also where no test runs."""
        self.poll(0.0)
        if self.job is None:
            for message in self._link.take_messages():
                self.obey(message)

    def _distrust(self, host: HostProcess) -> None:
        """Something that a host said is missing: what it says later can't be believed."""
        job = self.job
        if job is not None and job.host is host and job.verdict is None:
            job.verdict = Lost(f"{host.link.trouble} of what its host process said")
        kill_tree(host.pid)

    def _hear_worker(self, ready: set[int]) -> None:
        if self._link.fileno() in ready and not self._link.read():
            raise DeafError if self._link.trouble else WorkerGoneError
        if self._controller and not is_alive(self._controller):
            raise WorkerGoneError
        if self.job is not None:
            for message in self._link.take_messages():
                self.obey(message)

    def obey(self, message: Message) -> None:
        """Do what the worker says."""
        if isinstance(message, Ping):
            self.send(Pong())
        else:
            self._obey(message)

    def _hear(self, host: HostProcess) -> None:
        """Handle messages one by one: a handler may wait, and re-enter this loop meanwhile."""
        message = host.link.take_message()
        while message is not None:
            self._heard(host, message)
            message = host.link.take_message()

    def _heard(self, host: HostProcess, message: Message) -> None:
        job = self.job
        if job is None or job.host is not host:
            return
        if isinstance(message, Forked):
            self._forked(job, message)
        elif isinstance(message, ChildExited):
            self._child_exited(job, message)
        elif isinstance(message, Began):
            self._began(job, message.what)
        elif isinstance(message, Ready):
            self.orphans.note_daemons(host)
        elif isinstance(message, WideSetUp):
            self.orphans.note_daemons(host)
            self.set_clock(job, job.run.wide_timeout, "go on after wide fixtures were set up")
            self.tell(host, Proceed())
        elif isinstance(message, HostDone):
            self._idle(job, message)

    def _idle(self, job: Job, message: HostDone) -> None:
        job.host.retire = message.retire
        job.stops = job.stops or message.stops
        job.ran = message.ran
        if message.wary:
            self._obey(Broken(HOOKS, ""))
        if message.trouble:
            job.stage = ""
            job.conclude(Lost(message.trouble), job.host.pid, job.host.remains())
        self._host_done(job)

    def _forked(self, job: Job, message: Forked) -> None:
        # What the host wrote comes before what the child will write; it may be through by now,
        # and the host write again.
        self._forward(job, message.events)
        job.child = ChildProcess(message.pid, job.host.ties.sets[message.files])
        self._test_begins(job, "")
        if self.stop_deadline is not None:
            send_signal(message.pid, signal.SIGINT)

    def _began(self, job: Job, what: str) -> None:
        if what == "test":
            job.runs_here = True
            self._test_begins(job, "")
            return
        job.stage = what
        job.inherited_memory = None
        self.set_clock(job, job.run.wide_timeout)
        if self.stop_deadline is not None and what == "setup":
            # It began before the order to stop, and is heard after it.
            send_signal(job.host.pid, signal.SIGINT)

    def _test_begins(self, job: Job, stage: str) -> None:
        job.stage = stage
        self.set_clock(job, job.run.timeout)
        if job.run.memory_limit:
            job.inherited_memory = system.process_memory(job.host.pid)
        self.at_test()

    def _await_host(self, job: Job) -> None:
        """The test is over: its host says so soon, or what else it does."""
        self.set_clock(job, job.run.wide_timeout, "say that it is done")

    def set_clock(self, job: Job, limit: float, awaits: str = "") -> None:
        """Give what begins now a limit of so many seconds, 0 for none.

        :param awaits: what a host has to do by then that runs no code of the suite.
        """
        job.awaits = awaits
        job.limit = limit
        job.deadline = time.monotonic() + limit if limit else None

    def _child_exited(self, job: Job, message: ChildExited) -> None:
        child = job.child
        assert child is not None
        job.inherited_memory = None
        self.orphans.has_ended(child.pid)
        if message.leaves and job.verdict is None:
            if child.events_read:
                self.send(Restarted())
        else:
            if not message.early:
                self.may_have_had_gpus()
            self._forward(job)
            self._await_host(job)
            job.stops = message.stops
            job.used = message.used
            if job.verdict is None and child.completed and message.status in IN_ORDER:
                job.conclude(Finished(), child.pid)
            else:
                ending = (
                    job.verdict
                    or _lost(child)
                    or self._ending(message.status, message.ours, child.completed)
                )
                job.conclude(ending, child.pid, child.remains())
            job.verdict = None  # the host, which goes on, has a clock of its own
        job.child = None
        if job.ending is not None:
            # Last: the host goes on while we wait for what was left, and is heard as the host.
            job.leftovers += self.orphans.sweep(job.host, child.pid)

    def _ending(self, status: int, ours: bool, completed: bool = True) -> Ending:
        """How a process ended, by its status.

        :param ours: whether, if it exited, the status is one that our code gave, and no test's.
        :param completed: whether it had said that its test is over, if it is one that runs tests.
        """
        if ours and not completed and status in (DONE << 8, STOPS << 8):
            return Unreported(ITS_END)
        kills = system.oom_kills()
        out_of_memory, self._oom_kills = kills > self._oom_kills, kills
        ending = from_wait_status(status)
        if isinstance(ending, Signaled) and ending.signal == signal.SIGKILL:
            return Signaled(ending.signal, ending.core_dumped, out_of_memory)
        if isinstance(ending, Exited) and ours:
            reason = UNREPORTED.get(ending.status) or refusal_of(ending.status)
            return Lost(reason) if reason else ending
        return ending

    def _host_done(self, job: Job) -> None:
        self._forward(job)
        host = job.host
        if job.stage in ("setup", "teardown"):
            self.orphans.note_daemons(host)
        os.ftruncate(host.files.events, 0)
        host.events_read = 0
        if self._stream:
            for position, descriptor in enumerate((host.files.out, host.files.err)):
                os.ftruncate(descriptor, 0)
                host.output_read[position] = 0
        lost = _lost(host)
        if lost is not None:
            host.retire = True
            job.conclude(lost, host.pid)
        if job.ending is None:
            job.conclude(job.verdict or Finished(), host.pid)
        job.done = True

    def _reap(self) -> None:
        for host in list(self.hosts):
            if host.status is None:
                ended = reap(host.pid)
                if ended is not None:
                    host.status, used = ended
                    self._host_died(host, used)
        for spare in list(self.spares):
            if os.waitpid(spare.pid, os.WNOHANG)[0]:
                self.spares.remove(spare)
                spare.close()
        self.orphans.reap()

    def _host_died(self, host: HostProcess, used: Account) -> None:
        self.may_have_had_gpus()
        # Messages it sent before may still be there. Not up to the end of the stream: a process
        # that a fixture started may hold the other end.
        while not host.link.closed and host.link.is_readable(0.0) and host.link.read():
            pass
        self._hear(host)
        self.hosts.remove(host)
        job = self.job
        if job is not None and job.host is host and not job.done:
            self._forward(job)
            if job.child is not None:
                self._lose_child(job, job.child)
            else:
                assert host.status is not None
                ending = job.verdict or self._ending(host.status, host.ended_by_ours())
                if job.runs_here and not job.stage:
                    job.used = tuple(used)
                job.conclude(ending, host.pid, host.remains())
            job.leftovers += self.orphans.sweep(host)
            job.done = True
        elif job is None:
            self.orphans.sweep(host)
        host.close()

    def _lose_child(self, job: Job, child: ChildProcess) -> None:
        """The host died while a test was running in a child of its own."""
        assert job.host.status is not None
        kill_tree(child.pid)
        reason = f"its host process {_how(job.host.status)} while the test was running"
        job.conclude(job.verdict or Lost(reason), child.pid, child.remains())
        job.child = None

    # --- what is left ---

    def await_exit(self, host: HostProcess, job: Job) -> None:
        """Wait for a host that was told to finish, and for what it started."""
        if host in self.hosts and not self.until(
            lambda: host.status is not None, self._term_grace()
        ):
            kill_tree(host.pid)
            self.until(lambda: host.status is not None, KILL_WAIT)
        job.leftovers += self.orphans.sweep(host)
        if host in self.hosts:
            self.hosts.remove(host)
            host.close()

    def end_everything(self) -> None:
        """End all processes below this one."""
        for host in (*self.hosts, *self.spares):
            if host.status is None:
                kill_tree(host.pid)
        if self.job is not None and self.job.child is not None:
            kill_tree(self.job.child.pid)
        end_children(KILL_WAIT)

    def until(self, true: Callable[[], bool], limit: float) -> bool:
        """Wait until something is true, `limit` seconds at most; whether it is."""
        deadline = time.monotonic() + limit
        while not true():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.poll(min(left, 0.01))
        return True

    def tell(self, host: HostProcess, message: Message) -> None:
        """Send a message to a host, which may be dead: its exit tells."""
        with suppress(OSError):  # it is dead; its exit tells
            host.link.send(message)

    def send(self, message: Message) -> None:
        """Send a message to the worker.

        :raises WorkerGoneError: if it is gone.
        """
        with _worker_there():
            self._link.send(message)

    def send_files(self, message: Message, files: Files) -> None:
        """The same, with files."""
        with _worker_there():
            self._link.send_files(message, files)


@contextmanager
def _worker_there() -> Iterator[None]:
    """:raises WorkerGoneError: where the block raises OSError."""
    try:
        yield
    except OSError as error:
        raise WorkerGoneError from error


def _lost(process: HostProcess | ChildProcess) -> Lost | None:
    """The ending of a test of whose reports something is missing."""
    trouble = process.events.trouble
    return Lost(f"{trouble} of what its process reported") if trouble else None


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
