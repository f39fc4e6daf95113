"""What the report says, as values: the sessions, what went wrong and why, each test."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any, Iterator, Mapping, Sequence

from ...gpu.devices import placed
from ...named_tuple import NamedTuple
from ...own import own_builtins
from ...protocol.endings import count, format_size
from ..causes import cause_of
from ..events import Event
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

RED_OR_UNFINISHED = ("error", "failed", "unfinished")
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

    history: TestHistory
    name: str
    outcome: str
    message: str
    attempts: tuple[LaneAttempt, ...]
    attempt: int
    number: int
    cause: int = -1

    @property
    def nodeid(self) -> str:
        return self.history.nodeid

    @property
    def session(self) -> int:
        return self.history.session

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
    commands: tuple[Command, ...]

    @property
    def red(self) -> int:
        return sum(self.counts.get(name, 0) for name in RED_OR_UNFINISHED)

    def lane_names(self) -> list[str]:
        """What lanes are called, as in "gw1 (GPU 4)"."""
        return [placed(lane.worker, lane.gpus) for lane in self.timeline.lanes]

    def details(self) -> Iterator[dict[str, Any]]:
        lanes = self.lane_names()
        for test in self.tests:
            yield details(test.history, test.attempts, lanes, self.commands[test.session])


def content(events: Sequence[Event]) -> ReportContent:
    """What the report of these journals says.

    :param events: of whole journals, one after the other; the first is a ``run``.
    """
    told, timeline = history(events), Timeline()
    for happened in events:
        timeline.add(happened)
    tests, causes = _by_cause(_tests(told, timeline), timeline)
    return ReportContent(
        tuple(_head(session) for session in told.sessions),
        tests,
        causes,
        Counter(test.outcome for test in tests),
        tuple(_remarks(told)),
        timeline,
        tuple(
            command_of(session.runs[0], [*session.planned, *session.tests])
            for session in told.sessions
        ),
    )


# --- tests ---


def _tests(told: History, timeline: Timeline) -> tuple[ReportedTest, ...]:
    found = [_with_a_verdict(test, timeline) for test in told.current()]
    for session in range(len(told.sessions)):
        found += _without_verdict(told, session, timeline)
    rank = {name: number for number, name in enumerate(OUTCOMES)}
    found.sort(key=lambda test: (rank.get(test.outcome, -1), test.session, _start(test)))
    return tuple(found)


def _start(test: ReportedTest) -> float:
    return test.attempts[0].start if test.attempts else 0.0


def _placed(test: TestHistory, timeline: Timeline) -> tuple[LaneAttempt, ...]:
    return tuple(timeline.placed(test.session, each) for each in test.attempts)


def _with_a_verdict(test: TestHistory, timeline: Timeline) -> ReportedTest:
    message = str(test.verdict.get("message", ""))
    if test.repeated is not None:
        message = f"{words(repeated_again(test.repeated))}  {message}"
    counted = [at for at, each in enumerate(test.attempts) if each is test.counted]
    return ReportedTest(
        test,
        readable_name(test.nodeid),
        readable(test.outcome),
        readable_line(message),
        _placed(test, timeline),
        counted[0] if counted else -1,
        max(len(test.attempts), int(test.verdict.get("attempt", 1))),
    )


def _without_verdict(told: History, number: int, timeline: Timeline) -> Iterator[ReportedTest]:
    session = told.sessions[number]
    all_repetitions = session.repetitions
    running = (nodeid for nodeid, _ in session.running)
    for nodeid in dict.fromkeys([*session.planned, *running]):
        test = session.tests.get(nodeid) or TestHistory(nodeid, number)
        if test.verdict:
            continue
        repetitions = all_repetitions.get(nodeid, ())
        runs = bool(test.attempts) and test.attempts[-1].is_cut_off
        outcome, message = ("unfinished", _CUT_OFF) if runs or repetitions else ("not run", "")
        if repetitions:
            message = f"{words(of_events(repetitions))}  {message}"
        attempts = _placed(test, timeline)
        made = len(attempts)
        yield ReportedTest(test, readable_name(nodeid), outcome, message, attempts, made - 1, made)


_CUT_OFF = "the journal was cut off while the test ran"


def _by_cause(
    tests: tuple[ReportedTest, ...], timeline: Timeline
) -> tuple[tuple[ReportedTest, ...], tuple[RedGroup, ...]]:
    """The tests with the numbers of their causes, and these, that of most tests first."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, test in enumerate(tests):
        if test.outcome in RED_OR_UNFINISHED:
            groups[_cause(test)].append(number)
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


def _cause(test: ReportedTest) -> tuple[str, str]:
    """What happened, and where in the user's code."""
    if not test.history.verdict:
        return test.message, ""
    found = cause_of(test.history)
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
