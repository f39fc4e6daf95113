"""What the keeper does while something runs below it: hears, keeps the clock, waits and kills."""

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
    Message,
    Proceed,
    Ready,
    Restarted,
    WideSetUp,
)
from ...system.limits import raise_soft, refusal_of, restore
from ..child.child import DONE, IN_ORDER, STOPS
from ..child.usage import Account, reap
from ..process.fork_watch import HOOKS
from ..process.relay import UNREPORTED
from ..process.tree import end_children, kill_tree, send_signal
from .enforcing import Enforcer
from .forwarding import Forwarder
from .jobs import ChildProcess, HostProcess, Job, how, lost
from .orphans import KILL_WAIT, Orphans
from .waiting_loop import Loop

own_builtins(globals())

# Seconds.
TICK = 0.1  # between looks at a test that is running
MEMORY_TICK = 0.02  # the same where a memory limit is set


class Supervisor(Loop):
    """Looks after hosts, and after one test at a time.

    :param link: to the worker.
    :param obey: called with what the worker says while a test runs.
    :param stream: whether output is passed on while it is written.
    :param controller: pid to watch where the kernel does not tell of its death, or 0.
    """

    def __init__(
        self, link: Link, obey: Callable[[Message], None], stream: bool, controller: int
    ) -> None:
        super().__init__(link, obey, controller)
        self._forwarder = Forwarder(link.hold, self.send, stream)
        self._oom_kills = system.oom_kills()
        self._looked = 0.0  # when what tests wrote was last passed on before their end
        self.spares: list[HostProcess] = []
        """Hosts that no test was given to yet."""
        self.orphans = Orphans(self.hosts, self.spares, self.until)
        self.at_test: Callable[[], None] = lambda: None
        """Called when a test begins to run."""
        self.may_have_had_gpus: Callable[[], None] = lambda: None
        """Called when a process of a test has ended that may have had GPUs open."""
        self.orphans.at_end = lambda: self.may_have_had_gpus()
        self._enforcer = Enforcer(
            self.until,
            self._forwarder,
            self.orphans.abandon,
            self._let_go,
            lambda: self.stop_deadline,
        )
        self.stop_deadline: float | None = None
        self.stop_tests_deadline = 0.0

    def start(self) -> None:
        """In the keeper's process: meet no soft limit, and be woken when a child ends."""
        self._limits = raise_soft()
        self._begin_to_wait()

    def leave(self) -> None:
        """In a new host: undo :meth:`start`, and let go of all other hosts."""
        self._wait_no_more()
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
                self._enforcer.end(job, Lost("the run was stopped"))
                return
        if time.monotonic() >= self._looked + TICK:  # not as often as something happens
            self._looked = time.monotonic()
            self._forwarder.forward(job)
            self._forwarder.free(job)
        self._enforcer.check(job)

    # --- what happens ---

    def _distrust(self, host: HostProcess) -> None:
        job = self.job
        if job is not None and job.host is host and job.verdict is None:
            job.verdict = Lost(f"{host.link.trouble} of what its host process said")
        kill_tree(host.pid)

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
        self._forwarder.forward(job, message.events)
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
            self._forwarder.forward(job)
            self._await_host(job)
            job.stops = message.stops
            job.used = message.used
            if job.verdict is None and child.completed and message.status in IN_ORDER:
                job.conclude(Finished(), child.pid)
            else:
                ending = (
                    job.verdict
                    or lost(child)
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
        self._forwarder.forward(job)
        host = job.host
        if job.stage in ("setup", "teardown"):
            self.orphans.note_daemons(host)
        self._forwarder.forget(host)
        missing = lost(host)
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
            self._forwarder.forward(job)
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
        reason = f"its host process {how(job.host.status)} while the test was running"
        job.conclude(job.verdict or Lost(reason), child.pid, child.remains())
        job.child = None

    # --- what is left ---

    def await_exit(self, host: HostProcess, job: Job) -> None:
        """Wait for a host that was told to finish, and for what it started."""
        if host in self.hosts and not self.until(
            lambda: host.status is not None, self._enforcer.term_grace()
        ):
            kill_tree(host.pid)
            self.until(lambda: host.status is not None, KILL_WAIT)
        job.leftovers += self.orphans.sweep(host)
        if host in self.hosts:
            self._let_go(host)

    def _let_go(self, host: HostProcess) -> None:
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
