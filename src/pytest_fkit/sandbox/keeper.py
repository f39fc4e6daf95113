"""The process that forks hosts, keeps the clock, waits and kills; it never runs user code."""

from __future__ import annotations

import os
import signal
import time
import traceback
from typing import Callable, NoReturn

from ..endings import Finished, Lost, to_wire
from ..messages import (
    Broken,
    Ended,
    Finish,
    HostFiles,
    Message,
    Release,
    Run,
    RunTogether,
    Stop,
    TornDown,
)
from .copies import fork
from .descriptors import Files, Link
from .jobs import HostProcess, Job
from .progress import Progress
from .supervisor import Supervisor, WorkerGoneError
from .tree import send_signal


class Keeper:
    """Serves one worker.

    :param link: to the worker.
    :param host_main: what a new host runs, with the name under which tests share it, its link,
        its files, its progress and the keeper's pid.
    :param remember: called with each :class:`Broken`, for hosts forked later.
    :param stream: whether output is passed on while it is written.
    :param controller: pid to watch where the kernel does not tell of its death, or 0.
    """

    def __init__(
        self,
        link: Link,
        host_main: Callable[[str, Link, Files, Progress, int], NoReturn],
        remember: Callable[[Broken], None],
        stream: bool,
        controller: int = 0,
    ) -> None:
        self._link = link
        self._host_main = host_main
        self._remember = remember
        self._below = Supervisor(link, self._obey, stream, controller)

    def main(self) -> NoReturn:
        """Called in the new process, which has been set up by :mod:`.startup`."""
        status = 0
        try:
            self._below.start()
            self._serve()
        except WorkerGoneError:
            status = 0
        except BaseException:  # noqa: BLE001 (the worker's standard error is the place to tell)
            traceback.print_exc()
            status = 70  # EX_SOFTWARE
        finally:
            self._below.end_everything()
            os._exit(status)

    # --- what the worker asks for ---

    def _serve(self) -> None:
        while True:
            messages = self._link.take_messages()
            if not messages:
                self._below.poll(1.0)
                continue
            for message in messages:
                self._obey(message)

    def _obey(self, message: Message) -> None:
        if isinstance(message, Run):
            self._run(message, message)
        elif isinstance(message, RunTogether):
            self._run(message, Run(*message.runs[-1]))
        elif isinstance(message, Finish):
            self._finish(message.timeout)
        elif isinstance(message, Broken):
            self._remember(message)
        elif isinstance(message, Stop):
            now = time.monotonic()
            self._below.stop_deadline = now + message.grace
            # A test that does not go by itself must leave wide fixtures time for their teardown.
            self._below.stop_tests_deadline = now + message.grace / 2
            if self._below.job is None:
                self._finish(message.grace)
            elif self._below.job.runs_user_code:
                send_signal(self._below.job.process, signal.SIGINT)

    def _run(self, order: Run | RunTogether, run: Run) -> None:
        """Have a host do as the worker orders; `run` is the last test of the order."""
        if self._below.stop_deadline is not None:
            # The order to stop overtook this one.
            self._below.send(Ended(to_wire(Lost("the run was stopped"))))
            self._finish(0.0)
            return
        job = self._below.job = Job(run, self._host(run.share), isinstance(order, RunTogether))
        if job.together:
            self._below.set_clock(job, run.timeout)
            job.host.progress.begin()
        else:
            # Until the host says what it does: a fresh interpreter has to collect first.
            job.stage = "start"
            self._below.set_clock(job, run.wide_timeout)
        self._below.tell(job.host, order)
        self._below.wait_for(job)
        self._release_others(job)
        self._below.job = None
        assert job.ending is not None
        self._below.send(
            Ended(
                to_wire(job.ending), job.pid, job.wide, *job.remains[:3], job.dump,
                job.leftovers, job.survivors,
            )
        )  # fmt: skip
        self._finish_if_stopped()

    def _finish_if_stopped(self) -> None:
        if self._below.stop_deadline is not None:
            self._finish(max(0.0, self._below.stop_deadline - time.monotonic()))

    def _host(self, share: str) -> HostProcess:
        for host in self._below.hosts:
            if host.share == share:
                return host
        ours, theirs = Link.pair()
        files = Files.create()
        progress = Progress()
        keeper = os.getpid()
        pid = fork()
        if pid == 0:
            self._below.leave()
            os.close(ours.fileno())
            os.close(self._link.fileno())
            self._host_main(share, theirs, files, progress, keeper)
        theirs.close()
        host = HostProcess(pid, ours, files, share, progress)
        self._below.hosts.append(host)
        if share:
            self._below.send(HostFiles(share, pid), files)
        return host

    def _release_others(self, job: Job) -> None:
        """Have idle hosts tear down what the next test does not share, or end."""
        run = job.run
        for host in list(self._below.hosts):
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
        self._below.set_clock(job, run.wide_timeout)
        outer, self._below.job = self._below.job, job
        self._below.tell(host, command)
        self._below.wait_for(job)
        self._below.job = outer
        if isinstance(command, Finish):
            self._below.await_exit(host, job)
        return job

    def _finish(self, timeout: float) -> None:
        """Tear everything down."""
        run = Run(0, -1, "", "", 0.0, timeout, 0, 0)
        endings = [self._command(host, Finish(timeout), run) for host in list(self._below.hosts)]
        bad = [job for job in endings if job.ending != Finished()]
        leftovers = tuple(text for job in endings for text in job.leftovers)
        if bad:
            assert bad[0].ending is not None
            remains = bad[0].remains._replace(dump=bad[0].dump)
            self._below.send(TornDown(to_wire(bad[0].ending), *remains, leftovers))
        else:
            self._below.send(TornDown(to_wire(Finished()), leftovers=leftovers))
