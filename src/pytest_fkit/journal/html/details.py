"""All that there is to say of one test: its page in the report."""

from __future__ import annotations

import functools
import os.path
import re
import shlex
from typing import Any, Iterable, Iterator, Sequence

from ...config.one_test import kept_for_one_test
from ...gpu.devices import placed
from ...named_tuple import NamedTuple
from ...own import own_builtins
from ..events import USAGE, Event, death_title, wide_title, xid_title
from ..history import RED, AttemptHistory, TestHistory
from ..rates import RepeatResult, how_first, repeated_again, with_seed, words
from ..rates import details as details_of_repeated
from .readable import readable
from .timeline import LaneAttempt

own_builtins(globals())

_REPRODUCE = re.compile(r"^reproduce: (.+)$", re.MULTILINE)
"""As reports of deaths say it, with masks of GPUs."""


class Command(NamedTuple):
    """How tests of a run are run again.

    :param arguments: those of the run, without what chose its tests.
    :param base: the root directory, as seen from where the command was given.
    """

    arguments: tuple[str, ...]
    base: str

    def of(self, nodeid: str) -> str:
        path, separator, rest = nodeid.partition("::")
        place = os.path.normpath(f"{self.base}/{path}") if self.base else path
        return f"{_joined(self.arguments)} {shlex.quote(place + separator + rest)}"


@functools.lru_cache(maxsize=16)
def _joined(arguments: tuple[str, ...]) -> str:
    return shlex.join(("pytest", *arguments))


def command_of(run: Event, nodeids: Iterable[str]) -> Command:
    """The command of a run.

    :param run: its ``run`` event.
    :param nodeids: of all its tests, by which paths among its arguments are known.
    """
    rootdir, directory = str(run.get("rootdir", "")), str(run.get("directory", ""))
    base = os.path.relpath(rootdir, directory) if rootdir and directory else ""
    base = "" if base == "." else base
    paths = {os.path.normpath(f"{base or '.'}/{each}") for each in _places(nodeids)}
    kept = kept_for_one_test(
        run.get("arguments", ()), lambda each: _place(each, directory) in paths
    )
    return Command(tuple(kept), base)


def _places(nodeids: Iterable[str]) -> set[str]:
    """Files of tests, and the directories that they are in."""
    found: set[str] = set()
    for file in {nodeid.partition("::")[0] for nodeid in nodeids}:
        parts = file.split("/")
        found.update("/".join(parts[:number]) or "." for number in range(len(parts) + 1))
    return found


def _place(argument: str, directory: str) -> str:
    path = argument.partition("::")[0]
    return os.path.normpath(os.path.relpath(path, directory) if path.startswith("/") else path)


def details(
    test: TestHistory, attempts: Sequence[LaneAttempt], lanes: Sequence[str], command: Command
) -> dict[str, Any]:
    """What the page of a test shows, as JSON has it."""
    verdict = test.verdict
    reports = verdict.get("reports", ()) if verdict else test.reports
    location = verdict.get("location")
    repeated = repeated_again(verdict["repeated"]) if "repeated" in verdict else None
    shown = _shown(attempts)
    found: dict[str, Any] = {
        "id": readable(test.nodeid),
        "at": _location(location),
        "message": readable(str(verdict.get("message", ""))),
        "command": readable(_command(test.nodeid, reports, command, repeated)),
        "reports": [_report(each) for each in reports],
        "sections": [list(each) for each in _sections(reports)],
        "properties": _pairs(pair for each in reports for pair in each.get("properties", ())),
        "attempts": [_attempt(each, lanes) for each in shown],
        "several": _several_called(shown, attempts),
        "notes": [] if test.note is None else [_note(test.note)],
    }
    if repeated is not None:
        found["repeated"] = list(map(readable, _repeated(repeated)))
    return {name: value for name, value in found.items() if value}


def _shown(attempts: Sequence[LaneAttempt]) -> Sequence[LaneAttempt]:
    """The attempts to show: not all of ten thousand repetitions, failures first."""
    if len(attempts) <= MOST_ATTEMPTS:
        return attempts
    ordered = sorted(attempts, key=lambda each: each.attempt.repetition.get("outcome") not in RED)
    return sorted(ordered[:MOST_ATTEMPTS], key=lambda each: each.start)


def _several_called(shown: Sequence[LaneAttempt], attempts: Sequence[LaneAttempt]) -> str:
    if not any(each.attempt.repetition for each in shown):
        return ""
    if len(shown) == len(attempts):
        return "Repetitions"
    return f"{len(shown)} of {len(attempts):,} repetitions, failures first"


def _repeated(repeated: RepeatResult) -> Iterator[str]:
    yield words(repeated)
    yield from details_of_repeated(repeated)
    if repeated.failed and not repeated.once:
        yield how_first(repeated)


def _command(
    nodeid: str, reports: Sequence[Event], command: Command, repeated: RepeatResult | None
) -> str:
    texts = (_REPRODUCE.search(str(report.get("text", ""))) for report in reports)
    said = next(filter(None, texts), None)
    found = command.of(nodeid) if said is None else said[1]
    failed = repeated is not None and repeated.failed and not repeated.once
    return with_seed(found, repeated) if failed and repeated is not None else found


def _location(location: object) -> str:
    if not isinstance(location, list) or len(location) < 2:
        return ""
    path, line = location[0], location[1]
    return readable(f"{path}:{line + 1:.0f}" if isinstance(line, (int, float)) else str(path))


MOST_ATTEMPTS = 100
"""Attempts at a test that its page shows."""

_PLAIN = frozenset({"when", "outcome", "duration", "start"})
"""All that there is in the reports of most tests."""


def _report(report: Event) -> dict[str, Any]:
    if report.keys() <= _PLAIN:
        said = readable(report["when"]), readable(report["outcome"]), report["duration"]
        return {name: it for name, it in zip(("when", "outcome", "duration"), said) if it}
    found = {
        "when": readable(report["when"]),
        "outcome": readable(report["outcome"]),
        "duration": report["duration"],
        "text": readable(report.get("text", "")),
        "message": "" if "text" in report else readable(report.get("message", "")),
        "xfail": readable(report.get("xfail", "")),
        "rerun": report.get("rerun"),
    }
    if "skip" in report:
        path, line, reason = report["skip"]
        found["text"] = readable(f"{path}:{line}: {reason}" if line else f"{path}: {reason}")
    found["facts"] = _pairs(
        (name, said)
        for name, key in (
            ("process shared because", "fkit_shared"),
            ("quarantined", "fkit_quarantined"),
            ("GPU memory", "fkit_gpu_memory"),
            ("sanitizers", "fkit_sanitizers"),
        )
        for said in _several(report.get(key))
    )
    return {name: value for name, value in found.items() if value}


def _several(said: object) -> list[object]:
    if not said:
        return []
    return list(said) if isinstance(said, (list, tuple)) else [said]


def _sections(reports: Sequence[Event]) -> list[tuple[str, str]]:
    """Each once: reports on later phases repeat those of earlier ones."""
    return list(
        dict.fromkeys(
            (readable(name), readable(text))
            for report in reports
            for name, text in report.get("sections", ())
            if text
        )
    )


def _attempt(shown: LaneAttempt, lanes: Sequence[str]) -> dict[str, Any]:
    attempt, lane, start, duration = shown
    event = attempt.event
    found = {
        "where": lanes[lane],
        "pid": event.get("pid"),
        "title": _title(attempt),
        "start": round(start, 4),
        "duration": round(duration, 6),
        "cut": attempt.is_cut_off,
        "phases": [
            [readable(each["when"]), each["duration"], readable(each["outcome"])]
            for each in event.get("phases", ())
        ],
        "ending": readable(death_title(event)),
        "category": readable(str(event.get("category", ""))),
        "to": _next(attempt.again),
        "used": [[name, event[name]] for name in USAGE if event.get(name) is not None],
        "wide": [[readable(wide_title(each)), each["duration"]] for each in event.get("wide", ())],
        "metrics": _pairs(event.get("metrics", {}).items()),
        "facts": _pairs(_facts(event)),
    }
    return {name: value for name, value in found.items() if value not in (None, "", [], False)}


def _title(attempt: AttemptHistory) -> str:
    repetition = attempt.repetition
    if not repetition:
        number = attempt.event.get("attempt")
        return f"Attempt {number}" if isinstance(number, int) else ""
    how = " in a fresh interpreter" if repetition.get("fresh") else ""
    return f"Repetition {repetition['number'] + 1:.0f}{how}"


def _facts(event: Event) -> Iterator[tuple[str, object]]:
    if "repetition" in event:
        repetition = event["repetition"]
        yield "seed", repetition.get("seed", "?")
        yield "outcome", " ".join([repetition["outcome"], event.get("message", "")]).strip()
    if event.get("shared"):
        yield "process shared because", event["shared"]
    for each in _several(event.get("leftovers")):
        yield "left running", each
    for each in event.get("xids", ()):
        yield "Xid", f"{xid_title(each)} {each.get('message', '')}".strip()


def _next(again: Event | None) -> str:
    if again is None:
        return ""
    return readable(placed(str(again.get("to", "?")), again.get("to_gpus", ())))


def _note(event: Event) -> dict[str, Any]:
    names = ("seconds", "phase", "line", "stacks")
    return {
        name: readable(event[name]) if isinstance(event[name], str) else event[name]
        for name in names
        if event.get(name)
    }


def _pairs(pairs: Iterable[Any]) -> list[list[Any]]:
    return [
        [readable(str(name)), readable(value) if isinstance(value, str) else value]
        for name, value in (tuple(pair) for pair in pairs)
    ]
