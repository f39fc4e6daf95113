"""A history as text and as values, and its tests as CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from typing import Any, Dict, Iterable, Iterator

from ..gpu.devices import gpu_names, placed
from ..own import own_builtins
from ..protocol.endings import count, format_size
from .causes import LOST, Group, cause_of, grouped, met
from .events import Event, xid_title
from .history import WITH_ZONE, History, Session, TestHistory, argument, ungrouped, xid_key
from .rates import details, of_events, repeated_again, words

own_builtins(globals())

_ORDER = ("failed", "error", "quarantined", "passed", "skipped", "xfailed", "xpassed")


Values = Dict[str, Any]
"""A JSON object."""


def summary(history: History, by_cause: bool = False) -> Iterator[str]:
    """The runs, counts by outcome, and what went wrong, as lines.

    :param by_cause: name the causes with some of their tests, not each test that went wrong.
    """
    for number, session in enumerate(history.sessions):
        yield from _session(history, number, session)
    tests = history.current()
    if len(history.sessions) > 1:
        yield f"together: {_counts(tests)}"
    if by_cause:
        yield from causes(grouped(met(tests)))
    else:
        for test in tests:
            if test.went_wrong or test.outcome == "quarantined":
                yield f"  {test.outcome:6}  {_name(history, test)}  {_reason(test)}".rstrip()
    yield from _retries(history, tests)
    yield from _repeated(history, tests)
    yield from _missing(history)
    for number, session in enumerate(history.sessions):
        label = history.label(number)
        if session.end is None and session.running:
            yield "running when the journal was cut off:"
            yield from (f"  {label}{nodeid}  {worker}" for nodeid, worker in session.running)
        yield from _xids(session, label)
        yield from (f"{label}{each}" for each in session.retirement_lines())
        if session.gone:
            yield f"{count(len(session.gone), 'test')} with a verdict, no longer in the suite:"
            yield from (f"  {label}{nodeid}" for nodeid in sorted(session.gone))


_MISSING = 20
"""Tests without a verdict that are named: a run that is killed early has thousands."""

_NAMED = 3
"""Tests that are named of each cause; `fkit failed` and ``--format=json`` have them all."""


def causes(groups: list[Group]) -> Iterator[str]:
    """Causes as lines, each with where it was met and some of its tests; none for no cause."""
    if groups:
        yield f"{count(len(groups), 'cause')}:"
    for group in groups:
        where = ", ".join(filter(None, (*group.workers, gpu_names(group.gpus))))
        yield f"  {count(len(group.tests), 'test')}  {group.cause.title}  [{where}]"
        yield from (f"    {each.nodeid}" for each in group.tests[:_NAMED])
        if len(group.tests) > _NAMED:
            yield f"    and {len(group.tests) - _NAMED} more"


def _missing(history: History) -> Iterator[str]:
    """Tests without a verdict."""
    missing = history.not_run()
    if missing:
        yield f"{count(len(missing), 'test')} without a verdict:"
    named = missing[:_MISSING]
    yield from (f"  {history.label(session)}{nodeid}" for session, nodeid in named)
    if missing[_MISSING:]:
        yield f"  and {len(missing) - _MISSING} more; --format=json has them all"


def _retries(history: History, tests: list[TestHistory]) -> Iterator[str]:
    """Tests that had more than one attempt, with what the earlier ones met."""
    several = [test for test in tests if test.verdict.get("attempt", 1) > 1]
    if several:
        yield f"{count(len(several), 'test')} with more than one attempt:"
    for test in several:
        met = "; ".join(_retry(each) for each in test.retries)
        yield f"  {test.outcome} after {test.verdict['attempt']} attempts  " + "  ".join(
            filter(None, (_name(history, test), met))
        )


def _repeated(history: History, tests: list[TestHistory]) -> Iterator[str]:
    """Tests that were repeated, with their rates of failures."""
    found = [
        (_name(history, test), repeated_again(test.repeated))
        for test in tests
        if test.repeated is not None
    ]
    found += [
        (f"{history.label(number)}{nodeid}", of_events(repetitions))
        for number, session in enumerate(history.sessions)
        for nodeid, repetitions in session.repetitions.items()
    ]
    if found:
        yield f"{count(len(found), 'test')} repeated:"
    for name, repeated in found:
        yield f"  {name}  {'; '.join([words(repeated), *details(repeated)])}"


def _retry(retried: Event) -> str:
    worker, to = (
        placed(str(retried.get(name, "?")), retried.get(gpus, ()))
        for name, gpus in (("worker", "gpus"), ("to", "to_gpus"))
    )
    return f"{retried.get('category', '?')} on {worker}, then {to}"


def _xids(session: Session, label: str) -> Iterator[str]:
    """One line for all Xids of a kind, with the tests that ran while they occurred."""
    alike: dict[tuple[object, ...], list[Event]] = {}
    for each in session.xids:
        alike.setdefault(xid_key(each), []).append(each)
    for key, found in alike.items():
        # One that two sources reported has two events.
        number = max(Counter(each.get("source") for each in found).values())
        times = f", {number} times" if number > 1 else ""
        yield f"{label}{xid_title(found[0])} on {gpu_names(found[0].get('gpus', ()))}{times}"
        yield from (f"  during {nodeid}" for nodeid in session.xid_tests.get(key, ()))


_ORIGIN = ("commit", "branch", "job")


def _session(history: History, number: int, session: Session) -> Iterator[str]:
    run = session.runs[0]
    machine, versions = run.get("machine", {}), run.get("versions", {})
    yield (
        f"{history.label(number)}{session.began:{WITH_ZONE}}, {machine.get('host', '?')}: "
        f"pytest {' '.join(run.get('arguments', ()))}".rstrip()
    )
    drivers = {f"{name} driver": version for name, version in run.get("drivers", {}).items()}
    names = ", ".join(f"{name} {version}" for name, version in {**versions, **drivers}.items())
    of = [f"{name} {run[name]}" for name in _ORIGIN if name in run]
    if of:
        yield ", ".join(of)
    yield f"{names}; {session.seconds:.1f} s, {session.how_ended}"
    yield _counts([test for test in history.current() if test.session == number])


def _counts(tests: list[TestHistory]) -> str:
    found = Counter(test.outcome for test in tests)
    known = [f"{found.pop(name)} {name}" for name in _ORDER if name in found]
    parts = known + [f"{number} {name}" for name, number in sorted(found.items())]
    return f"{count(len(tests), 'test')}: {', '.join(parts)}" if parts else "no tests"


def summary_values(history: History) -> Values:
    tests = history.current()
    return {
        "runs": [_session_values(history, *each) for each in enumerate(history.sessions)],
        "outcomes": dict(Counter(test.outcome for test in tests)),
        "red": [_red_values(test) for test in tests if test.went_wrong],
        "causes": [cause_values(group) for group in grouped(met(tests))],
        "retried": [
            {
                "session": test.session + 1, "test": test.nodeid, "outcome": test.outcome,
                "attempts": test.verdict["attempt"], "met": [_retry(each) for each in test.retries],
            }
            for test in tests
            if test.verdict.get("attempt", 1) > 1
        ],
        "repeated": [
            {"session": test.session + 1, "test": test.nodeid, **test.repeated}
            for test in tests
            if test.repeated is not None
        ],
        "without_verdict": [
            {"session": session + 1, "test": nodeid} for session, nodeid in history.not_run()
        ],
    }  # fmt: skip


def _session_values(history: History, number: int, session: Session) -> Values:
    run, end = session.runs[0], session.end
    return {
        "session": number + 1,
        "begin": run["wall"],
        "seconds": round(session.seconds, 6),
        "exitstatus": None if end is None else end.get("exitstatus"),
        "cut_off": end is None,
        "resumed": len(session.runs) - 1,
        "arguments": run.get("arguments", []),
        "machine": run.get("machine", {}),
        "versions": run.get("versions", {}),
        "drivers": run.get("drivers", {}),
        **{name: run[name] for name in _ORIGIN if name in run},
        "outcomes": dict(
            Counter(test.outcome for test in history.current() if test.session == number)
        ),
        "running": [
            {"test": nodeid, "worker": worker}
            for nodeid, worker in ({} if session.end else session.running)
        ],
        "xids": session.xids,
        "retirements": session.retirements,
        "gone": sorted(session.gone),
    }


def _red_values(test: TestHistory) -> Values:
    found = cause_of(test)
    return {
        "session": test.session + 1, "test": test.nodeid, "outcome": test.outcome,
        "message": _reason(test), "cause": "" if found == LOST else found.title,
    }  # fmt: skip


def cause_values(group: Group) -> Values:
    return {
        **group.cause._asdict(), "title": group.cause.title, "workers": group.workers,
        "gpus": group.gpus, "tests": [each.nodeid for each in group.tests],
    }  # fmt: skip


def _name(history: History, test: TestHistory) -> str:
    return f"{history.label(test.session)}{test.nodeid}"


def _reason(test: TestHistory) -> str:
    return str(test.verdict.get("message", "")).partition("\n")[0]


def failed(history: History) -> list[str]:
    """The tests that went wrong, each once, as pytest takes them on its command line."""
    tests = [(test.nodeid, test.session) for test in history.current() if test.went_wrong]
    # Of a run that was cut off while it repeated them.
    tests += [
        (nodeid, number)
        for number, session in enumerate(history.sessions)
        for nodeid, repetitions in session.repetitions.items()
        if of_events(repetitions).failed
    ]
    runs = [session.runs[-1] for session in history.sessions]
    return list(dict.fromkeys(_argument(nodeid, runs[session]) for nodeid, session in tests))


def _argument(nodeid: str, run: Event) -> str:
    nodeid = ungrouped(nodeid, run)
    rootdir, directory = run.get("rootdir"), run.get("directory")
    if isinstance(rootdir, str) and isinstance(directory, str) and rootdir != directory:
        return argument(nodeid, rootdir, directory)
    return nodeid


def slowest(history: History, number: int) -> Iterator[str]:
    """The tests that took longest, with what they used, as lines."""
    for test in _slowest(history, number):
        line = f"{_seconds(test):9.3f} s"
        if "user" in test.attempt:
            cpu = test.attempt["user"] + test.attempt["system"]
            line += f"  CPU {cpu:8.3f} s  {format_size(test.attempt['peak_memory']):>10}"
        yield f"{line}  {test.outcome:7}  {_name(history, test)}"


def slowest_rows(history: History, number: int) -> list[Values]:
    """The same as values, see :func:`rows`."""
    return [_row_values(test) for test in _slowest(history, number)]


def _slowest(history: History, number: int) -> list[TestHistory]:
    return sorted(history.current(), key=_seconds, reverse=True)[:number]


def _seconds(test: TestHistory) -> float:
    return float(test.attempt.get("duration", 0.0))


_COLUMNS = (
    "session", "test", "outcome", "message", "ending", "attempt", "worker", "gpus", "pid", "start",
    "duration", "setup", "call", "teardown", "user", "system", "peak_memory", "minor_faults",
    "major_faults", "read", "written", "gpu_peak_memory",
)  # fmt: skip


def rows(history: History) -> list[Values]:
    """Each test with what is known of it: the columns of :func:`table`, and "metrics"."""
    return [_row_values(test) for test in history.current()]


def table(history: History) -> Iterator[str]:
    """The tests as CSV (RFC 4180), one per row, with a column "metric NAME" for each metric."""
    tests = history.current()
    metrics = sorted({name for test in tests for name in test.attempt.get("metrics", {})})
    yield _row([*_COLUMNS, *(f"metric {name}" for name in metrics)])
    for test in tests:
        known, values = _known(test), test.attempt.get("metrics", {})
        cells = (_cell(known.get(name)) for name in _COLUMNS)
        yield _row([*cells, *(values.get(name, "") for name in metrics)])


def _known(test: TestHistory) -> Values:
    phases = {each["when"]: each["duration"] for each in test.attempt.get("phases", ())}
    return {
        **test.verdict, **test.attempt, **phases, "session": test.session + 1,
        "message": _reason(test), "ending": test.attempt.get("ending", {}).get("title", ""),
        "gpus": ",".join(test.attempt.get("gpus", ())),
    }  # fmt: skip


def _row_values(test: TestHistory) -> Values:
    known = _known(test)
    row = {name: known[name] for name in _COLUMNS if known.get(name) is not None}
    rounded = {name: round(it, 6) if isinstance(it, float) else it for name, it in row.items()}
    gpus, metrics = test.attempt.get("gpus", []), test.attempt.get("metrics", {})
    return {**rounded, "gpus": gpus, "metrics": metrics}


def _cell(value: object) -> object:
    if isinstance(value, float):  # times, to the microsecond
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return "" if value is None else value


def _row(values: Iterable[object]) -> str:
    text = io.StringIO()
    # Lone surrogates, which a test's name may hold, can't be written to a file.
    csv.writer(text).writerow(
        [str(each).encode("utf-8", "backslashreplace").decode() for each in values]
    )
    return text.getvalue()
