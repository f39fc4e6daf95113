"""The journal's facts about one attempt at a test, from the messages of its process."""

from __future__ import annotations

from typing import Any, Callable

from ...own import own_builtins, time
from ...protocol.border import ItemAttempt
from ...protocol.endings import Ending, Finished
from ...protocol.event_file import (
    Figure,
    HeldReport,
    Metric,
    Phase,
    Report,
    SharedProcess,
    Used,
    UsedBefore,
    WideSetup,
    WideSetupDone,
    WideTeardown,
)
from ...protocol.messages import Ended, Message, Restarted
from ...protocol.plain_values import carriable
from ...sandbox.child.usage import RawUsage, Usage, since

own_builtins(globals())


class AttemptRecorder:
    """Collects the facts, from the first message of a test to the last.

    :param shared: why the test does not have a process of its own, or "".
    """

    def __init__(self, nodeid: str, shared: str = "") -> None:
        self._nodeid = nodeid
        self._start = time.time()
        self._phases: list[list[Any]] = []
        self._wide: list[list[Any]] = []
        self._open: list[list[Any]] = []
        self._ending: Ending = Finished()
        self._pid = 0
        self._used: tuple[Any, ...] = ()
        self._used_before: Usage | None = None
        self._shared = shared
        self._metrics: dict[str, Figure] = {}
        self._leftovers: tuple[str, ...] = ()

    def handle(self, message: Message) -> None:
        handler = _HANDLERS.get(type(message))
        if handler is not None:
            handler(self, message)

    def facts(self, left: int, again: bool) -> ItemAttempt:
        """What is known.

        :param left: how many reports on it are still to come.
        :param again: whether the test is run once more.
        """
        phases = self._phases
        if phases and not phases[-1][3] and not isinstance(self._ending, Finished):
            # The phase in which a process died has no report of its own.
            phases[-1][2:] = [max(0.0, time.time() - phases[-1][1]), "died"]
        return ItemAttempt(
            self._nodeid,
            phases[0][1] if phases else self._start,
            self._ending,
            tuple((name, start, took, said) for name, start, took, said in phases if said),
            tuple(map(tuple, carriable(self._wide))),
            self._pid,
            self._used,
            carriable(self._shared),
            tuple(self._metrics.items()),
            carriable(self._leftovers),
            left=left,
            again=again,
        )

    def _phase(self, message: Phase) -> None:
        if self._phases and self._phases[-1][0] == message.name and not self._phases[-1][3]:
            self._phases[-1][1] = message.time  # the child's part of it, after that of its host
            return
        if self._phases:
            # A setup's report includes the time of wide fixtures, which the host set up.
            _, start, seconds, _ = last = self._phases[-1]
            last[2] = max(0.0, min(seconds, message.time - start))
        self._phases.append([message.name, message.time, 0.0, ""])

    def _held_report(self, message: HeldReport) -> None:
        self._report(message.report)

    def _report(self, message: Report) -> None:
        data = message.data
        whole = data.get("$report_type") == "TestReport"  # not on a subtest
        if whole and self._phases and self._phases[-1][0] == data.get("when"):
            outcome = data["outcome"]
            if "wasxfail" in data:
                outcome = "xfailed" if outcome == "skipped" else "xpassed"
            self._phases[-1][2:] = [data.get("duration", 0.0), outcome]

    def _restarted(self, _: Restarted) -> None:
        self._phases.clear()
        self._metrics.clear()

    def _wide_setup(self, message: WideSetup) -> None:
        step = ["setup", message.label, message.time, 0.0]
        self._wide.append(step)
        self._open.append(step)

    def _wide_setup_done(self, message: WideSetupDone) -> None:
        if self._open:
            step = self._open.pop()
            step[3] = max(0.0, message.time - step[2])

    def _wide_teardown(self, message: WideTeardown) -> None:
        self._wide.append(["teardown", "wide fixtures", message.start, message.duration])

    def _metric(self, message: Metric) -> None:
        self._metrics.pop(message.name, None)
        if message.value is not None:
            self._metrics[message.name] = message.value

    def _shared_process(self, message: SharedProcess) -> None:
        self._shared = message.cause

    def _began_with(self, message: UsedBefore) -> None:
        self._used_before = Usage(*message.used)

    def _used_by(self, message: Used) -> None:
        self._pid, self._used = message

    def _ended(self, message: Ended) -> None:
        self._ending, self._pid = message.ending, message.pid or self._pid
        if not self._used and message.used:
            used = RawUsage(*message.used).usage()
            before = self._used_before
            self._used = tuple(used if before is None else since(before, used))
        self._leftovers = message.leftovers


_HANDLERS: dict[type[object], Callable[..., None]] = {
    Phase: AttemptRecorder._phase,
    Report: AttemptRecorder._report,
    HeldReport: AttemptRecorder._held_report,
    Restarted: AttemptRecorder._restarted,
    WideSetup: AttemptRecorder._wide_setup,
    WideSetupDone: AttemptRecorder._wide_setup_done,
    WideTeardown: AttemptRecorder._wide_teardown,
    Metric: AttemptRecorder._metric,
    SharedProcess: AttemptRecorder._shared_process,
    Used: AttemptRecorder._used_by,
    UsedBefore: AttemptRecorder._began_with,
    Ended: AttemptRecorder._ended,
}
