"""The command ``fkit quarantine check``: which entries of a quarantine are due."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import Any, Callable, Iterable, Sequence

from ..named_tuple import NamedTuple
from .history import History, history, ungrouped
from .quarantine import SKIP, KnownFailure, Quarantine, QuarantineError, parse
from .reader import JournalError
from .subcommand import Answer, Make, as_json, events_of, journals, text

_TITLES = {
    "expired": "expired",
    "unused": "about no test of these runs",
    "passed": "passed in all of these runs",
}


class Due(NamedTuple):
    """An entry, and why somebody should look at it: a name in _TITLES."""

    entry: KnownFailure
    why: str


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="the quarantine, as TOML")
    journals(parser)


def _made(show: Callable[[Sequence[Due], int], Iterable[bytes]]) -> Make:
    def answer(options: argparse.Namespace) -> Answer:
        entries = read_quarantine(options.file)
        found = due(entries, history(events_of(options.journals)), datetime.date.today())
        return Answer(show(found, len(entries)), 1 if found else 0)

    return answer


FORMATS: dict[str, Make] = {
    "text": _made(lambda found, entries: text(_lines(found, entries))),
    "json": _made(lambda found, _: as_json(_values(found))),
}


def read_quarantine(path: Path) -> list[KnownFailure]:
    """The entries of a file.

    :raises JournalError: if it can't be read, or is none.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise JournalError(str(path), f"can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise JournalError(str(path), "not TOML: it is not in UTF-8") from None
    except QuarantineError as error:
        raise JournalError(str(path), str(error)) from None


def due(entries: Sequence[KnownFailure], told: History, today: datetime.date) -> list[Due]:
    """The entries that have expired, are about no test, or whose tests passed in all runs."""
    runs = [session.runs[-1] for session in told.sessions]
    outcomes: dict[str, list[str]] = {}
    for test in told.current():
        steady = test.outcome if test.verdict.get("attempt", 1) <= 1 else "flaky"
        outcomes.setdefault(ungrouped(test.nodeid, runs[test.session]), []).append(steady)
    for number, nodeid in told.not_run():
        outcomes.setdefault(ungrouped(nodeid, runs[number]), [])
    quarantine = Quarantine(entries, outcomes)
    of_entries: dict[KnownFailure, list[str]] = {}
    for nodeid, verdicts in outcomes.items():
        for entry in quarantine.about(nodeid):
            of_entries.setdefault(entry, []).extend(verdicts)
    return [
        Due(entry, why)
        for entry in entries
        for why in _why(entry, of_entries.get(entry, []), entry in quarantine.unused, today)
    ]


def _why(
    entry: KnownFailure, verdicts: Sequence[str], unused: bool, today: datetime.date
) -> Iterable[str]:
    if entry.is_expired(today):
        yield "expired"
    if unused:
        yield "unused"
    elif entry.mode != SKIP and verdicts and all(each == "passed" for each in verdicts):
        yield "passed"


def _lines(found: Sequence[Due], entries: int) -> Iterable[str]:
    for why, title in _TITLES.items():
        due_so = [each.entry for each in found if each.why == why]
        if due_so:
            yield f"{title}:"
        for entry in due_so:
            yield "  " + "  ".join(filter(None, (entry.test, entry.expires, entry.issue)))
    if not found:
        yield "all entries are in use" if entries else "there are no entries"


def _values(found: Sequence[Due]) -> dict[str, list[dict[str, Any]]]:
    return {why: [each.entry._asdict() for each in found if each.why == why] for why in _TITLES}
