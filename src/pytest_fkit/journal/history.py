"""What journals say, put together: sessions, tests with their verdicts, and what is missing."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Callable, Iterable, Iterator

from ..gpu.devices import placed
from ..own import own_builtins
from ..protocol.endings import count
from ..system.paths import joined, relative
from .events import Event

own_builtins(globals())

WITH_ZONE = "%Y-%m-%d %H:%M:%S %z"
"""How the begin of a session is shown."""

RED = ("failed", "error")
"""The outcomes for which a run exits with 1."""


@dataclass
class AttemptHistory:
    """An attempt at a test.

    :param event: what the journal says of it; of one that was cut off, the start of the test.
    :param run: number of its run in the session, from 0.
    :param again: the ``retried`` event that says where the test runs again, None if it does not.
    """

    event: Event
    run: int
    is_cut_off: bool = False
    again: Event | None = None

    @property
    def repetition(self) -> Event:
        """What the event says of it as a repetition, empty if it is none."""
        found: Event = self.event.get("repetition", {})
        return found


@dataclass
class TestHistory:
    """A test that has begun.

    :param session: its session's number, from 0.
    :param verdict: empty if there is none.
    :param attempts: in their order, those of all runs of the session.
    :param counted: the attempt that the verdict is of.
    :param reports: without a verdict, the ``report`` events since the test began.
    :param note: without a verdict, the last ``running`` event.
    """

    __test__ = False

    nodeid: str
    session: int
    verdict: Event = field(default_factory=dict)
    attempts: list[AttemptHistory] = field(default_factory=list)
    counted: AttemptHistory | None = None
    reports: list[Event] = field(default_factory=list)
    note: Event | None = None

    @property
    def attempt(self) -> Event:
        """The event of the attempt that counts."""
        return {} if self.counted is None else self.counted.event

    @property
    def retries(self) -> list[Event]:
        """The ``retried`` events of the last run."""
        last = self.attempts[-1].run if self.attempts else 0
        return [each.again for each in self.attempts if each.again and each.run == last]

    def repetitions(self, run: int) -> dict[float, AttemptHistory]:
        """By their numbers."""
        found = (each for each in self.attempts if each.repetition and each.run == run)
        return {each.repetition["number"]: each for each in found}

    @property
    def repeated(self) -> Event | None:
        """What all repetitions of it say together, None if it was not repeated."""
        found: Event | None = self.verdict.get("repeated")
        return None if found is None or found.get("once") else found

    @property
    def outcome(self) -> str:
        return str(self.verdict.get("outcome", "?"))

    @property
    def went_wrong(self) -> bool:
        """Whether it is why its run is red."""
        return self.outcome in RED


@dataclass
class Session:
    """A run, together with those that resumed it.

    :param runs: their ``run`` events.
    :param end: the last run's ``end`` event, None if it was cut off.
    :param last: the last event of the last run.
    :param planned: node ids of the tests that the last run selected.
    :param gone: node ids with a verdict that the last run did not collect any more.
    :param running: start events of what the last run was running when it was cut off, by node id
        and worker.
    :param retirements: ``retired``, ``not_retired`` and ``readmitted`` events.
    :param xids: ``xid`` events.
    :param tests: those that have begun, by node id.
    :param xid_tests: node ids of the tests that ran while an Xid occurred, by its number and GPUs.
    """

    runs: list[Event]
    end: Event | None
    last: Event
    planned: list[str] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    running: dict[tuple[str, str], Event] = field(default_factory=dict)
    retirements: list[Event] = field(default_factory=list)
    xids: list[Event] = field(default_factory=list)
    tests: dict[str, TestHistory] = field(default_factory=dict)
    xid_tests: dict[tuple[object, ...], dict[str, None]] = field(default_factory=dict)

    @property
    def began(self) -> datetime.datetime:
        """In the time zone of this machine."""
        return datetime.datetime.fromtimestamp(self.runs[0]["wall"]).astimezone()

    @property
    def seconds(self) -> float:
        """From its begin to the last event."""
        return float(self.last["wall"] - self.runs[0]["wall"])

    @property
    def how_ended(self) -> str:
        """As in "exit status 1, resumed 2 times"."""
        end = "cut off" if self.end is None else f"exit status {self.end.get('exitstatus', '?')}"
        return f"{end}, resumed {count(len(self.runs) - 1, 'time')}" if self.runs[1:] else end

    @property
    def repetitions(self) -> dict[str, list[Event]]:
        """The ``attempt`` events of repetitions of tests that have no verdict, by node id."""
        last = len(self.runs) - 1
        found = {
            nodeid: [each.event for each in test.repetitions(last).values()]
            for nodeid, test in self.tests.items()
            if not test.verdict
        }
        return {nodeid: events for nodeid, events in found.items() if events}

    def retirement_lines(self) -> Iterator[str]:
        """As in "gw2 (GPU 4) was retired: the reason"."""
        for each in self.retirements:
            worker = placed(str(each.get("worker", "?")), each.get("gpus", ()))
            what = each["event"].replace("_", " ")
            last = ", since no other was left" if what == "not retired" else ""
            yield f"{worker} was {what}{last}: {each.get('reason', '?')}"


@dataclass
class History:
    """All sessions, and all tests with a verdict."""

    sessions: list[Session] = field(default_factory=list)
    tests: list[TestHistory] = field(default_factory=list)

    def label(self, session: int) -> str:
        """What distinguishes a session's lines, as in "[1] ", if there are several."""
        return f"[{session + 1}] " if len(self.sessions) > 1 else ""

    def not_run(self) -> list[tuple[int, str]]:
        """Session and node id of tests that were collected and have no verdict."""
        have = {(test.session, test.nodeid) for test in self.tests}
        return [
            (number, nodeid)
            for number, session in enumerate(self.sessions)
            for nodeid in session.planned
            if (number, nodeid) not in have
        ]

    def current(self) -> list[TestHistory]:
        """The tests, without those that a later revision of the suite does not have."""
        return [test for test in self.tests if test.nodeid not in self.sessions[test.session].gone]


def history(events: Iterable[Event]) -> History:
    """The history in the events of whole journals, one journal after the other.

    :param events: the first is a ``run``, as :mod:`.reader` makes sure.
    """
    told = _Told()
    for happened in events:
        told.add(happened)
    if told.found.sessions:
        told.cut_off()
    return told.found


class _Told:
    """Makes a history of events in their order."""

    def __init__(self) -> None:
        self.found = History()
        self._last: dict[tuple[str, str], AttemptHistory] = {}  # by node id and worker

    def add(self, happened: Event) -> None:
        name = happened["event"]
        if name == "run":
            self._run(happened)
            return
        session = self.found.sessions[-1]
        session.last = happened
        handler = _OF_TESTS.get(name)
        if handler is None:
            _update(session, happened)
            return
        nodeid = str(happened.get("test"))
        test = session.tests.setdefault(nodeid, TestHistory(nodeid, len(self.found.sessions) - 1))
        handler(self, session, test, happened)

    def _run(self, run: Event) -> None:
        self._last.clear()
        before = self.found.sessions[-1] if self.found.sessions else None
        if before is not None:
            self.cut_off()
        if before is not None and before.runs[0].get("session") == run.get("session"):
            before.runs.append(run)
            before.end, before.last = None, run
            before.running.clear()
            before.planned = []
        else:
            self.found.sessions.append(Session([run], None, run))

    def cut_off(self) -> None:
        """The last run is over: what still runs has made an attempt."""
        session = self.found.sessions[-1]
        for (nodeid, _), start in session.running.items():
            attempt = AttemptHistory(start, len(session.runs) - 1, is_cut_off=True)
            session.tests[nodeid].attempts.append(attempt)

    def _start(self, session: Session, test: TestHistory, happened: Event) -> None:
        session.running[_key(happened)] = happened
        test.reports.clear()

    def _report(self, _: Session, test: TestHistory, happened: Event) -> None:
        if "when" in happened and "outcome" in happened:
            test.reports.append({"duration": 0.0, **happened})

    def _running(self, _: Session, test: TestHistory, happened: Event) -> None:
        test.note = happened

    def _attempt(self, session: Session, test: TestHistory, happened: Event) -> None:
        attempt = self._last[_key(happened)] = AttemptHistory(happened, len(session.runs) - 1)
        test.attempts.append(attempt)
        if attempt.repetition:  # no verdict follows each of them
            session.running.pop(_key(happened), None)
        for xid in happened.get("xids", ()):
            session.xid_tests.setdefault(xid_key(xid), {})[test.nodeid] = None

    def _retried(self, session: Session, _: TestHistory, happened: Event) -> None:
        session.running.pop(_key(happened), None)
        attempt = self._last.pop(_key(happened), None)
        if attempt is not None:
            attempt.again = happened

    def _verdict(self, session: Session, test: TestHistory, happened: Event) -> None:
        session.running.pop(_key(happened), None)
        if test.verdict:  # of another worker, with --dist=each
            test = TestHistory(test.nodeid, test.session, {}, test.attempts)
            session.tests[test.nodeid] = test
        test.verdict, test.counted = happened, self._last.pop(_key(happened), None)
        test.reports, test.note = [], None
        if "repeated" in happened:
            stands = happened["repeated"].get("stands", 0)
            repetitions = test.repetitions(len(session.runs) - 1)
            test.counted = repetitions.get(stands, test.counted)
        self.found.tests.append(test)


_OF_TESTS: dict[str, Callable[[_Told, Session, TestHistory, Event], None]] = {
    "start": _Told._start,
    "report": _Told._report,
    "running": _Told._running,
    "attempt": _Told._attempt,
    "retried": _Told._retried,
    "verdict": _Told._verdict,
}
"""The events that tell how far a test is."""


def _key(happened: Event) -> tuple[str, str]:
    return str(happened.get("test")), str(happened.get("worker"))


def ungrouped(nodeid: str, run: Event) -> str:
    """A node id without what xdist adds with --dist=loadgroup, as in "test_a.py::test_b@group".

    :param run: the ``run`` event of its run.
    """
    name, _, group = nodeid.rpartition("@")
    grouped = run.get("options", {}).get("dist") == "loadgroup"
    return name if grouped and name and "]" not in group else nodeid


def argument(nodeid: str, rootdir: str, directory: str) -> str:
    """What selects a test on the command line.

    :param rootdir: to which the node id is relative.
    :param directory: where the command is given.
    """
    path, separator, rest = nodeid.partition("::")
    return relative(joined(rootdir, path), directory) + separator + rest


def xid_key(xid: Event) -> tuple[object, ...]:
    """Equal for Xids of one kind."""
    return (xid.get("xid"), *xid.get("gpus", ()))


def _update(session: Session, happened: Event) -> None:
    name = happened["event"]
    if name == "collection" and "nodeids" in happened:
        session.planned = list(happened["nodeids"])
    elif name == "resume":
        session.gone = set(happened.get("gone", ()))
    elif name in ("retired", "not_retired", "readmitted"):
        session.retirements.append(happened)
    elif name == "xid":
        session.xids.append(happened)
    elif name == "end":
        session.end = happened
