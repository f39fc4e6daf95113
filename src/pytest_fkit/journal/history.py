"""What journals say, put together: sessions, tests with their verdicts, and what is missing."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Iterable, Iterator

from ..own import own_builtins
from ..protocol.endings import count
from ..system.paths import joined, relative
from .events import Event, placed

own_builtins(globals())

_OF_TESTS = ("start", "attempt", "retried", "verdict")
"""The events that tell how far a test is."""

WITH_ZONE = "%Y-%m-%d %H:%M:%S %z"
"""How the begin of a session is shown."""

RED = ("failed", "error")
"""The outcomes for which a run exits with 1."""


@dataclass
class TestHistory:
    """A test with a verdict.

    :param session: its session's number, from 0.
    :param attempt: the event of the attempt that counts.
    :param retries: the ``retried`` events before it.
    """

    __test__ = False

    nodeid: str
    session: int
    verdict: Event
    attempt: Event
    retries: list[Event] = field(default_factory=list)

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
    :param retirements: ``retired`` and ``readmitted`` events.
    :param xids: ``xid`` events.
    :param repetitions: the ``attempt`` events of repetitions of tests that have no verdict, by node
        id and number.
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
    repetitions: dict[str, dict[float, Event]] = field(default_factory=dict)
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

    def retirement_lines(self) -> Iterator[str]:
        """As in "gw2 (GPU 4) was retired: the reason"."""
        for each in self.retirements:
            worker = placed(str(each.get("worker", "?")), each.get("gpus", ()))
            yield f"{worker} was {each['event']}: {each.get('reason', '?')}"


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
    found = History()
    attempts: dict[tuple[str, str], Event] = {}
    retries: dict[str, list[Event]] = {}
    for happened in events:
        name = happened["event"]
        if name == "run":
            attempts.clear()
            retries.clear()
            _begin(found, happened)
            continue
        session = found.sessions[-1]
        session.last = happened
        if name not in _OF_TESTS:
            _update(session, happened)
            continue
        key = str(happened.get("test")), str(happened.get("worker"))
        if name == "start":
            session.running[key] = happened
        elif name == "attempt":
            if "repetition" in happened:
                session.running.pop(key, None)
                of_test = session.repetitions.setdefault(key[0], {})
                of_test[happened["repetition"]["number"]] = happened
            else:
                attempts[key] = happened
            for xid in happened.get("xids", ()):
                session.xid_tests.setdefault(xid_key(xid), {})[key[0]] = None
        elif name == "retried":
            session.running.pop(key, None)
            retries.setdefault(key[0], []).append(happened)
        else:
            session.running.pop(key, None)
            number = len(found.sessions) - 1
            attempt, before = attempts.pop(key, {}), retries.pop(key[0], [])
            if "repeated" in happened:
                of_test = session.repetitions.pop(key[0], {})
                attempt = of_test.get(happened["repeated"].get("stands", 0), attempt)
            found.tests.append(TestHistory(key[0], number, happened, attempt, before))
    return found


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


def _begin(found: History, run: Event) -> None:
    before = found.sessions[-1] if found.sessions else None
    if before is not None and before.runs[0].get("session") == run.get("session"):
        before.runs.append(run)
        before.end, before.last = None, run
        before.running.clear()
        before.repetitions.clear()
        before.planned = []
    else:
        found.sessions.append(Session([run], None, run))


def _update(session: Session, happened: Event) -> None:
    name = happened["event"]
    if name == "collection" and "nodeids" in happened:
        session.planned = list(happened["nodeids"])
    elif name == "resume":
        session.gone = set(happened.get("gone", ()))
    elif name in ("retired", "readmitted"):
        session.retirements.append(happened)
    elif name == "xid":
        session.xids.append(happened)
    elif name == "end":
        session.end = happened
