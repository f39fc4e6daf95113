"""What the report says, as values: the sessions, what went wrong and why, each test."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any, Iterator, Mapping, Sequence

from ...named_tuple import NamedTuple
from ...own import own_builtins
from ...protocol.endings import count, format_size
from ..causes import LOST, cause
from ..events import Event, placed
from ..history import WITH_ZONE, History, Session, TestHistory, history
from ..rates import of_events, repeated_again, words
from .details import Command, command_of, details
from .readable import readable, readable_line, readable_name
from .timeline import LaneAttempt, Timeline, in_natural_order

own_builtins(globals())

OUTCOMES = (
    "error", "failed", "unfinished", "not run", "quarantined", "xpassed", "passed", "skipped",
    "xfailed",
)  # fmt: skip
"""All outcomes, in the order in which tests are shown; two that a verdict does not know: the
journal was cut off while the test ran, or before."""

RED = ("error", "failed", "unfinished")
"""What somebody has to look at."""


class Fact(NamedTuple):
    """A line about a session; `link` is an address on the web, or ""."""

    name: str
    value: str
    link: str = ""


class SessionHead(NamedTuple):
    """What there is to say of a session as a whole.

    :param began: as text, in the time zone in which the report is made.
    :param ended: how, as in "exit status 1".
    """

    began: str
    seconds: float
    ended: str
    is_cut_off: bool
    command: str
    facts: tuple[Fact, ...]


class RedGroup(NamedTuple):
    """Tests that are red for one cause.

    :param place: the innermost frame of the user's own code, or "".
    :param tests: indices of them.
    :param places: the workers on which it was met, with their GPUs.
    :param gpus: how many GPUs these have.
    """

    title: str
    place: str
    tests: tuple[int, ...]
    places: tuple[str, ...]
    gpus: int


class ReportedTest(NamedTuple):
    """A test, as lists show it.

    :param attempt: index in `attempts` of the one that counts, -1 if there is none.
    :param number: of attempts that were made, those of another run included.
    """

    nodeid: str
    name: str
    session: int
    outcome: str
    message: str
    attempts: tuple[LaneAttempt, ...]
    attempt: int
    number: int
    cause: int = -1

    @property
    def counted(self) -> LaneAttempt | None:
        return self.attempts[self.attempt] if self.attempt >= 0 else None


class ReportContent(NamedTuple):
    """All that the report says but the details of tests."""

    heads: tuple[SessionHead, ...]
    tests: tuple[ReportedTest, ...]
    causes: tuple[RedGroup, ...]
    counts: Mapping[str, int]
    remarks: tuple[str, ...]
    timeline: Timeline
    sources: _Sources

    @property
    def red(self) -> int:
        return sum(self.counts.get(name, 0) for name in RED)

    def lane_names(self) -> list[str]:
        """What lanes are called, as in "gw1 (GPU 4)"."""
        return [placed(lane.worker, lane.gpus) for lane in self.timeline.lanes]

    def details(self) -> Iterator[dict[str, Any]]:
        lanes = self.lane_names()
        for test in self.tests:
            key = test.session, test.nodeid
            yield details(
                test.nodeid,
                self.sources.verdicts.get(key) or {"reports": self.sources.reports.get(key, ())},
                test.attempts,
                lanes,
                self.sources.commands[test.session],
                self.sources.notes.get(key, ()),
            )


class _Sources(NamedTuple):
    """Events that details are made of, by session and node id."""

    verdicts: dict[tuple[int, str], Event]
    reports: dict[tuple[int, str], list[Event]]
    notes: dict[tuple[int, str], list[Event]]
    commands: list[Command]


def content(events: Sequence[Event]) -> ReportContent:
    """What the report of these journals says.

    :param events: of whole journals, one after the other; the first is a ``run``.
    """
    told = history(events)
    timeline, sources = Timeline(), _Sources({}, {}, {}, [])
    for happened in events:
        timeline.add(happened)
        _keep(sources, len(timeline.ends) - 1, happened)
    timeline.finish()
    for number, session in enumerate(told.sessions):
        decided = (test.nodeid for test in told.tests if test.session == number)
        sources.commands.append(command_of(session.runs[0], [*session.planned, *decided]))
    tests = _tests(told, timeline)
    tests, causes = _by_cause(tests, sources.verdicts, timeline)
    return ReportContent(
        tuple(_head(session) for session in told.sessions),
        tests,
        causes,
        Counter(test.outcome for test in tests),
        tuple(_remarks(told)),
        timeline,
        sources,
    )


_KEPT = ("verdict", "start", "report", "running")


def _keep(sources: _Sources, session: int, happened: Event) -> None:
    name = happened["event"]
    if name not in _KEPT:
        return
    key = session, str(happened.get("test"))
    if name == "verdict":
        sources.verdicts[key] = happened
        sources.reports.pop(key, None)
        sources.notes.pop(key, None)
    elif name == "start":  # of another attempt, perhaps
        sources.reports.pop(key, None)
    elif name == "report":
        if "when" in happened and "outcome" in happened:
            sources.reports.setdefault(key, []).append({"duration": 0.0, **happened})
    elif name == "running":
        sources.notes[key] = [happened]


# --- tests ---


def _tests(told: History, timeline: Timeline) -> tuple[ReportedTest, ...]:
    attempts: dict[tuple[int, str], list[LaneAttempt]] = defaultdict(list)
    for each in timeline.attempts:
        attempts[each.session, each.nodeid].append(each)
    found = [_with_a_verdict(test, attempts) for test in told.current()]
    found += _without_verdict(told, attempts)
    rank = {name: number for number, name in enumerate(OUTCOMES)}
    found.sort(key=lambda test: (rank.get(test.outcome, -1), test.session, _start(test)))
    return tuple(found)


def _start(test: ReportedTest) -> float:
    return test.attempts[0].start if test.attempts else 0.0


def _with_a_verdict(
    test: TestHistory, attempts: Mapping[tuple[int, str], Sequence[LaneAttempt]]
) -> ReportedTest:
    of_test = tuple(attempts.get((test.session, test.nodeid), ()))
    whole = [
        number
        for number, each in enumerate(of_test)
        if not each.cut_off and not each.event.get("again")
    ]
    message = str(test.verdict.get("message", ""))
    if test.repeated is not None:
        message = f"{words(repeated_again(test.repeated))}  {message}"
    if "repeated" in test.verdict:
        stands = test.verdict["repeated"].get("stands", 0)
        whole = [at for at in whole if of_test[at].repetition.get("number") == stands] or whole
    number = test.verdict.get("attempt", 1)
    return ReportedTest(
        test.nodeid,
        readable_name(test.nodeid),
        test.session,
        readable(test.outcome),
        readable_line(message),
        of_test,
        whole[-1] if whole else -1,
        max(len(of_test), int(number)),
    )


def _without_verdict(
    told: History, attempts: Mapping[tuple[int, str], Sequence[LaneAttempt]]
) -> Iterator[ReportedTest]:
    seen: set[tuple[int, str]] = {(test.session, test.nodeid) for test in told.tests}
    planned = [
        (number, nodeid)
        for number, session in enumerate(told.sessions)
        for nodeid in (*session.planned, *(nodeid for nodeid, _ in session.running))
    ]
    for number, nodeid in dict.fromkeys(planned):
        if (number, nodeid) in seen:
            continue
        of_test = tuple(attempts.get((number, nodeid), ()))
        repetitions = told.sessions[number].repetitions.get(nodeid, {}).values()
        runs = bool(of_test) and of_test[-1].cut_off
        outcome, message = ("unfinished", _CUT_OFF) if runs or repetitions else ("not run", "")
        if repetitions:
            message = f"{words(of_events(repetitions))}  {message}"
        name = readable_name(nodeid)
        yield ReportedTest(
            nodeid, name, number, outcome, message, of_test, len(of_test) - 1, len(of_test)
        )


_CUT_OFF = "the journal was cut off while the test ran"


def _by_cause(
    tests: tuple[ReportedTest, ...],
    verdicts: Mapping[tuple[int, str], Event],
    timeline: Timeline,
) -> tuple[tuple[ReportedTest, ...], tuple[RedGroup, ...]]:
    """The tests with the numbers of their causes, and these, that of most tests first."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, test in enumerate(tests):
        if test.outcome in RED:
            groups[_cause(test, verdicts)].append(number)
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[1]))
    causes = tuple(
        RedGroup(title, place, tuple(numbers), *_places(numbers, tests, timeline))
        for (title, place), numbers in ordered
    )
    of_test = {number: at for at, cause in enumerate(causes) for number in cause.tests}
    numbered = (
        test._replace(cause=of_test[number]) if number in of_test else test
        for number, test in enumerate(tests)
    )
    return tuple(numbered), causes


def _cause(test: ReportedTest, verdicts: Mapping[tuple[int, str], Event]) -> tuple[str, str]:
    """What happened, and where in the user's code."""
    verdict = verdicts.get((test.session, test.nodeid))
    if verdict is None:
        return test.message, ""
    found = cause(verdict.get("reports", ())) or LOST
    return readable(found._replace(frame="").title), readable(found.frame)


def _places(
    numbers: Sequence[int], tests: Sequence[ReportedTest], timeline: Timeline
) -> tuple[tuple[str, ...], int]:
    lanes = {
        test.counted.lane
        for test in (tests[number] for number in numbers)
        if test.counted is not None
    }
    met = [timeline.lanes[lane] for lane in lanes]
    named = {placed(lane.worker, lane.gpus) for lane in met}
    gpus = {(lane.session, gpu) for lane in met for gpu in lane.gpus}
    return tuple(sorted(named, key=in_natural_order)), len(gpus)


# --- sessions ---


def _head(session: Session) -> SessionHead:
    run = session.runs[0]
    return SessionHead(
        f"{session.began:{WITH_ZONE}}",
        max(session.seconds, 0.0),
        session.how_ended,
        session.end is None,
        readable(" ".join(["pytest", *run.get("arguments", ())])),
        tuple(_facts(run)),
    )


def _facts(run: Event) -> Iterator[Fact]:
    machine = run.get("machine", {})
    if "host" in machine:
        yield Fact("Host", readable(str(machine["host"])))
    hardware = [str(machine[name]) for name in ("system",) if machine.get(name)]
    if isinstance(machine.get("cpus"), int):
        hardware.append(count(machine["cpus"], "CPU"))
    if isinstance(machine.get("memory"), int):
        hardware.append(format_size(machine["memory"]))
    if hardware:
        yield Fact("Machine", readable(", ".join(hardware)))
    gpus = _gpus(run.get("devices"))
    if gpus:
        yield Fact("GPUs", gpus)
    if isinstance(run.get("drivers"), dict):
        drivers = ", ".join(f"{vendor} {version}" for vendor, version in run["drivers"].items())
        yield Fact("Driver", readable(drivers))
    yield from _from_where(run)
    versions = run.get("versions", {})
    if versions:
        yield Fact("Versions", readable(", ".join(f"{name} {it}" for name, it in versions.items())))
    if run.get("directory"):
        yield Fact("Directory", readable(str(run["directory"])))


def _gpus(devices: object) -> str:
    if not isinstance(devices, list):
        return ""
    names = Counter(
        str(each.get("name") or each.get("vendor", "?"))
        for each in devices
        if isinstance(each, dict)
    )
    return ", ".join(f"{number} x {readable(name)}" for name, number in names.items())


def _from_where(run: Event) -> Iterator[Fact]:
    commit, branch, job = (readable(str(run.get(name, ""))) for name in ("commit", "branch", "job"))
    if commit or branch:
        yield Fact("Commit", ", ".join(filter(None, (commit[:12], branch))))
    if job:
        yield Fact("CI job", job, job if re.match("https?://", job) else "")


def _remarks(told: History) -> Iterator[str]:
    """What is about no test: GPUs that were given up, tests that are gone."""
    for number, session in enumerate(told.sessions):
        label = told.label(number)
        yield from (readable(f"{label}{each}") for each in session.retirement_lines())
        if session.gone:
            gone = count(len(session.gone), "test")
            yield f"{label}{gone} with a verdict, no longer in the suite"
