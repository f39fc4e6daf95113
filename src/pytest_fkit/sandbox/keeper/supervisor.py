"""Supervises hosts and the running test: handles messages, keeps deadlines, reaps and kills."""

from __future__ import annotations

from typing import Callable

from ... import system
from ...own import os, own_builtins, signal, time
from ...protocol.channels import Link
from ...protocol.endings import (
    ITS_END,
    Ending,
    Exited,
    Finished,
    Lost,
    Signaled,
    Unreported,
    from_wait_status,
)
from ...protocol.messages import (
    Began,
    Broken,
    ChildExited,
    Forked,
    HostDone,
    Inspected,
    Message,
    Proceed,
    Ready,
    Restarted,
    SessionOver,
    WideReady,
)
from ...system.limits import raise_soft, refusal_of, restore
from ..child.child import DONE, IN_ORDER, STOPS
from ..child.usage import RawUsage, reap
from ..process.fork_watch import HOOKS
from ..process.relay import UNREPORTED
from ..process.tree import KILL_WAIT, end_children, kill_tree, send_signal
from .crashes import Crashes
from .debugger import Debugger, Runner, Tools
from .enforcing import Enforcer, inspect
from .forwarding import Forwarder
from .jobs import ChildProcess, HostProcess, Job, end_in_words
from .kept_cores import Cores, Keeping
from .orphans import Orphans
from .waiting_loop import Loop
from .wrapped import wrapped_end_after_test, wrapped_ending

own_builtins(globals())

# Seconds.
TICK = 0.1  # between checks of a running test
SHORT_TICK = 0.02  # where it has a memory limit, or is one of several that may be over long before


class Supervisor(Loop):
    """Supervises all hosts, and one test at a time.

    :param handle_order: called with each message of the worker that arrives while a test runs.
    :param stream: whether output is forwarded while it is written.
    :param controller: pid to poll on systems where its death is not signaled, or 0.
    :param tools: print native stacks; None if nobody is to be asked for them.
    :param keeping: says which cores are kept; None if none are.
    """

    def __init__(
        self,
        link: Link,
        handle_order: Callable[[Message], None],
        stream: bool,
        controller: int,
        tools: Tools | None,
        keeping: Keeping | None,
    ) -> None:
        super().__init__(link, handle_order, controller)
        self._forwarder = Forwarder(link.hold, self.send, stream)
        self._oom_kills = system.oom_kills()
        self._forwarded_at = self._freed_at = 0.0  # monotonic times of the last periodic ones
        self.spares: list[HostProcess] = []
        """Hosts that have not been given a test yet."""
        self.orphans = Orphans(self.hosts, self.spares, self.until)
        self.on_test_start: Callable[[], None] = lambda: None
        """Called when a test starts to run."""
        self.on_gpu_user_end: Callable[[], None] = lambda: None
        """Called when a test process has ended that may have had a GPU open."""
        self.orphans.on_end = lambda: self.on_gpu_user_end()
        runner = Runner(self.until, self.orphans.spare, lambda: self.stop_deadline)
        debugger = None if tools is None else Debugger(tools, runner)
        cores = None if keeping is None else Cores(keeping, runner, self.until)
        self._crashes = Crashes(debugger, cores)
        self._enforcer = Enforcer(
            self.until,
            self._forwarder,
            self.orphans.abandon,
            self._forget_host,
            debugger,
            lambda: self.stop_deadline,
        )
        self.stop_deadline: float | None = None
        self.stop_tests_deadline = 0.0
        self.interrupt_at: float | None = None
        """When to interrupt what runs, None if nothing is to be, or has been."""
        self._last_of_batch = 0.0

    def start(self) -> None:
        """In the keeper's process: raise soft limits, and wake up on SIGCHLD."""
        self._limits = raise_soft()
        self._watch_children()

    def leave(self) -> None:
        """In a new host: undo :meth:`start`, and close the descriptors of all other hosts."""
        self._unwatch_children()
        for host in (*self.hosts, *self.spares):
            host.close()
        restore(self._limits)

    def poll(self, wait: float) -> None:
        """Wait for events, `wait` seconds at most, and handle them; look at what crashed."""
        super().poll(wait)
        self._crashes.look(self.job)

    # --- while something is running ---

    def wait_for(self, job: Job) -> None:
        """Supervise a test until it is over and its host is idle."""
        while not job.done:
            wait = SHORT_TICK if job.run.memory_limit or job.together else TICK
            if job.together and job.limit:
                job.deadline = job.host.progress.began() + job.limit
            if job.deadline is not None:
                wait = max(0.0, min(wait, job.deadline - time.monotonic()))
            self.poll(wait)
            self._check(job)
        self.interrupt_at = None  # no other job is a test

    def _check(self, job: Job) -> None:
        if job.done:
            return
        if self.interrupt_at is not None and self._is_to_be_interrupted(job):
            self.interrupt_at = None
            if job.runs_user_code:
                send_signal(job.process, signal.SIGINT)
        if self.stop_deadline is not None:
            deadline = self.stop_tests_deadline if job.runs_test else self.stop_deadline
            if time.monotonic() > deadline:
                self._enforcer.end(job, Lost("the run was stopped"))
                return
        now = time.monotonic()
        if now >= self._forwarded_at + (SHORT_TICK if job.together else TICK):  # not at each event
            self._forwarded_at = now
            self._forwarder.forward(job)
        if now >= self._freed_at + TICK:
            self._freed_at = now
            self._forwarder.free(job)
        self._enforcer.check(job)

    def interrupt_later(self, at: float) -> None:
        """Interrupt what runs at that time, or before another test of its batch."""
        assert self.job is not None
        self.interrupt_at, self._last_of_batch = at, self.job.host.progress.began()

    def _is_to_be_interrupted(self, job: Job) -> bool:
        assert self.interrupt_at is not None
        another = job.together and job.host.progress.began() > self._last_of_batch
        return another or time.monotonic() >= self.interrupt_at

    # --- events ---

    def _inspect(self) -> None:
        job = self.job
        if job is None or job.done or job.verdict is not None:
            self.send(Inspected(0))
        else:
            self.send(inspect(job, self.until))

    def _host_message_lost(self, host: HostProcess) -> None:
        job = self.job
        if job is not None and job.host is host and job.verdict is None:
            job.judge(Lost(f"{host.link.trouble} of what its host process said"))
        kill_tree(host.pid)

    def _handle_host(self, host: HostProcess, message: Message) -> None:
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
            host.inner = message.pid
            self.orphans.record_daemons(host)
        elif isinstance(message, WideReady):
            self.orphans.record_daemons(host)
            self.set_clock(job, job.run.timeout, "go on after wide fixtures were set up")
            self.send_to_host(host, Proceed())
        elif isinstance(message, HostDone):
            self._host_idle(job, message)
        elif isinstance(message, SessionOver):
            host.session_goes_on = False

    def _host_idle(self, job: Job, message: HostDone) -> None:
        job.host.retire = message.retire
        job.stops = job.stops or message.stops
        job.ran, job.awaits_judgment = message.ran, message.awaits_judgment
        job.seconds = time.monotonic() - job.began
        if message.wary:
            self._handle_order(Broken(HOOKS, ""))
        if message.trouble:
            job.stage = ""
            job.conclude(Lost(message.trouble), job.host.pid, job.host.remains())
        self._host_done(job)

    def _forked(self, job: Job, message: Forked) -> None:
        # Forward what the host wrote before the fork first. The child may have ended by now, and
        # the host may have written more: hence the end of the range.
        self._forwarder.forward(job, message.events)
        job.child = ChildProcess(message.pid, job.host.connection.sets[message.files])
        self._test_begins(job)
        if self.stop_deadline is not None:
            send_signal(message.pid, signal.SIGINT)

    def _began(self, job: Job, what: str) -> None:
        if what == "test":
            job.runs_here = True
            self._test_begins(job)
            return
        job.stage, job.wide_began = what, True
        job.inherited_memory = None
        self.set_clock(job, job.run.timeout)
        if self.stop_deadline is not None and what == "setup":
            # The setup began before Stop arrived, but its message is read after it.
            send_signal(job.host.pid, signal.SIGINT)

    def _test_begins(self, job: Job) -> None:
        job.stage = ""
        self.set_clock(job, job.run.timeout)
        if job.run.memory_limit:
            job.inherited_memory = system.process_memory(job.host.process)
        self.on_test_start()

    def set_clock(self, job: Job, limit: float, awaits: str = "") -> None:
        """Restart the clock of a job for its next step.

        :param limit: seconds, 0 for no limit.
        :param awaits: what the host has to do by then, if that runs no code of the suite.
        """
        job.awaits = awaits
        job.limit = limit
        job.deadline = time.monotonic() + limit if limit else None

    def _child_exited(self, job: Job, message: ChildExited) -> None:
        child = job.child
        assert child is not None
        job.inherited_memory = None
        self.orphans.forget(child.pid)
        if message.leaves and job.verdict is None:
            if child.events_read:
                self.send(Restarted())
        else:
            self._forwarder.forward(job)
            if child.completed is None or child.completed.may_free_gpus:
                self.on_gpu_user_end()
            self.set_clock(job, job.run.timeout, "say that it is done")
            job.stops = message.ours and message.status == STOPS << 8
            job.used = message.used
            if job.verdict is None and child.completed and message.status in IN_ORDER:
                job.conclude(Finished(), child.pid)
            else:
                ending = (
                    job.verdict
                    or child.lost_reports()
                    or self._ending(message.status, message.ours, child.completed is not None)
                )
                job.conclude(ending, child.pid, child.remains())
                self._crashes.ended(job)
            job.verdict = None  # it was about the child; the host continues on its own clock
        job.child = None
        if job.ending is not None:
            # Last, and with job.child reset: sweeping polls, and messages of the host may arrive.
            job.leftovers += self.orphans.sweep(job.host, child.pid)

    def _ending(self, status: int, ours: bool, completed: bool = True) -> Ending:
        """Derive how a process ended from its wait status.

        :param ours: whether our code chose the exit status, and not code of a test.
        :param completed: whether the process, if it runs tests, had reported its test as complete.
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
        self._forwarder.forward(job)
        host = job.host
        if job.stage in ("setup", "teardown"):
            self.orphans.record_daemons(host)
        self._forwarder.reset(host)
        missing = host.lost_reports()
        if missing is not None:
            host.retire = True
            job.conclude(missing, host.pid)
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

    def _host_died(self, host: HostProcess, used: RawUsage) -> None:
        self.on_gpu_user_end()
        # Read the messages that it sent before. Don't wait for the end of the stream: a process
        # that a fixture started may hold the other end open.
        while not host.link.closed and host.link.is_readable(0.0) and host.link.read():
            pass
        self._handle_messages_of(host)
        self.hosts.remove(host)
        job = self.job
        if job is not None and job.host is host and not job.done:
            self._forwarder.forward(job)
            if job.child is not None:
                self._lose_child(job, job.child)
            else:
                assert host.status is not None
                ending = job.verdict or wrapped_ending(host)
                ending = ending or self._ending(host.status, host.ended_by_ours())
                if job.runs_here and not job.stage:
                    job.used = tuple(used)
                job.conclude(ending, host.pid, host.remains())
                self._crashes.ended(job)
            job.leftovers += self.orphans.sweep(host)
            job.done = True
        elif job is None:
            self.orphans.sweep(host)
        elif job.host is host:
            bad = wrapped_end_after_test(host)
            if bad is not None and self.stop_deadline is None:
                job.conclude(bad, host.pid, host.remains())
        host.close()

    def _lose_child(self, job: Job, child: ChildProcess) -> None:
        """Conclude a test whose host died while a child of it was running the test."""
        assert job.host.status is not None
        kill_tree(child.pid)
        how = end_in_words(job.host.status, job.host.ended_by_ours())
        reason = f"its host process {how} while the test was running"
        job.conclude(job.verdict or Lost(reason), child.pid, child.remains())
        job.child = None

    # --- ends of hosts ---

    def await_exit(self, host: HostProcess, job: Job) -> None:
        """Wait for a host that was sent Finish to exit, and end what it started."""
        if host in self.hosts:
            job.leftovers += self._enforcer.await_session(host, job.run.timeout)
        if host in self.hosts and not self._enforcer.await_end(host, job.run.timeout):
            # First: killed with the host it would have no name.
            job.leftovers += self.orphans.end_below(host)
            kill_tree(host.pid)
            self.until(lambda: host.status is not None, KILL_WAIT)
        job.leftovers += self.orphans.sweep(host)
        if host in self.hosts:
            self._forget_host(host)

    def _forget_host(self, host: HostProcess) -> None:
        self.hosts.remove(host)
        host.close()

    def end_everything(self) -> None:
        """Kill all processes below the keeper."""
        for host in (*self.hosts, *self.spares):
            if host.status is None:
                kill_tree(host.pid)
        if self.job is not None and self.job.child is not None:
            kill_tree(self.job.child.pid)
        end_children(KILL_WAIT)
