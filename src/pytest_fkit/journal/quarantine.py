"""Tests whose failures are known, and do not fail a run: entries of a TOML file."""

from __future__ import annotations

import datetime
import sys
from typing import TYPE_CHECKING, Any, Iterable, Sequence

from ..named_tuple import NamedTuple
from ..own import own_builtins

if TYPE_CHECKING:
    from .causes import Cause

own_builtins(globals())

RUN, SKIP = "run", "skip"

QUARANTINE_TOLD = "fkit_quarantine"
"""The name in ``workerinput`` of the entries, as tuples."""

_TABLE = "quarantine"
_EXAMPLE = (
    '[[quarantine]] with test = "tests/test_a.py::test_*", issue = "https://…", '
    'expires = 2030-12-31, and mode = "run" or "skip"'
)


class QuarantineError(Exception):
    """A file is no quarantine."""


class KnownFailure(NamedTuple):
    """What one entry says.

    :param test: a node id, or one in which ``*`` stands for anything.
    :param expires: the last day on which it counts, as in "2030-12-31".
    :param mode: RUN or SKIP.
    :param cause: the title of the failure's cause, with ``*`` as in `test`; "" for any.
    """

    test: str
    issue: str
    expires: str
    mode: str = RUN
    cause: str = ""

    @property
    def reason(self) -> str:
        """Why its tests don't count, for reports."""
        until = f"quarantined until {self.expires}"
        return f"{until}: {self.issue}" if self.issue else until

    def is_expired(self, today: datetime.date) -> bool:
        return self.expires < today.isoformat()

    def has_cause(self, cause: Cause) -> bool:
        return not self.cause or matches(self.cause, cause.title)


def matches(pattern: str, text: str) -> bool:
    """Whether a text is what a pattern says, in which only ``*`` has a meaning: anything."""
    first, *rest = pattern.split("*")
    return text.startswith(first) and _goes_on(first, rest, text)


def _goes_on(first: str, rest: Sequence[str], text: str) -> bool:
    """The same for a text that begins as the pattern does.

    :param rest: what stands behind each ``*``.
    """
    if not rest:
        return text == first
    *middle, last = rest
    if len(text) < len(first) + len(last) or not text.endswith(last):
        return False
    begin, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, begin, end)
        if found < 0:
            return False
        begin = found + len(part)
    return True


class Quarantine:
    """The entries that count, for the tests that there are.

    :param nodeids: those of the tests: an entry that is the node id of one is about that one alone.
    """

    def __init__(self, entries: Sequence[KnownFailure], nodeids: Iterable[str]) -> None:
        known = frozenset(nodeids)
        self._exact: dict[str, list[KnownFailure]] = {}
        self._patterns: list[tuple[str, list[str], KnownFailure]] = []
        for entry in entries:
            if entry.test in known:
                self._exact.setdefault(entry.test, []).append(entry)
            elif "*" in entry.test:
                first, *rest = entry.test.split("*")
                self._patterns.append((first, rest, entry))
        self._begins = tuple(first for first, _, _ in self._patterns)
        used = {entry for nodeid in known for entry in self._of_patterns(nodeid)}
        self.unused = [entry for entry in entries if entry.test not in known and entry not in used]
        """Entries that are about none of the tests."""

    def about(self, nodeid: str) -> list[KnownFailure]:
        """The entries about a test, those with its node id first."""
        return [*self._exact.get(nodeid, ()), *self._of_patterns(nodeid)]

    def _of_patterns(self, nodeid: str) -> list[KnownFailure]:
        if not nodeid.startswith(self._begins):  # as of most tests, by far
            return []
        return [
            entry
            for first, rest, entry in self._patterns
            if nodeid.startswith(first) and _goes_on(first, rest, nodeid)
        ]


# --- the file ---


def parse(text: str) -> list[KnownFailure]:
    """The entries of a file.

    :raises QuarantineError: naming the entry and what is wrong with it.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise QuarantineError(f"not TOML: {error}") from None
    except RecursionError:
        raise QuarantineError("not TOML: it is nested too deeply") from None
    entries = found.get(_TABLE, [])
    unknown = sorted(found.keys() - {_TABLE})
    if unknown or not isinstance(entries, list):
        raise QuarantineError(f"{(unknown or [_TABLE])[0]!r}: expected {_EXAMPLE}")
    return [_entry(number, entry) for number, entry in enumerate(entries, 1)]


def _entry(number: int, given: Any) -> KnownFailure:
    place = f"entry {number}"
    if not isinstance(given, dict):
        raise QuarantineError(f"{place}: expected {_EXAMPLE}")
    unknown = sorted(given.keys() - set(KnownFailure._fields))
    if unknown:
        raise QuarantineError(f"{place}: {unknown[0]!r} is unknown; expected {_EXAMPLE}")
    texts = {name: given[name] for name in given if name != "expires"}
    wrong = [name for name, value in texts.items() if not isinstance(value, str) or not value]
    if wrong or "test" not in texts:
        raise QuarantineError(f"{place}: {(wrong or ['test'])[0]!r}: expected a string")
    if texts.get("mode", RUN) not in (RUN, SKIP):
        raise QuarantineError(f"{place}: mode = {texts['mode']!r}: expected 'run' or 'skip'")
    try:
        expires = _day(given.get("expires"))
    except ValueError:
        text = f"{place} ({texts['test']}): 'expires': expected a day, as in expires = 2030-12-31"
        raise QuarantineError(text) from None
    return KnownFailure(**{"issue": "", **texts, "expires": expires})


def _day(given: object) -> str:
    if isinstance(given, datetime.datetime):
        return given.date().isoformat()
    if isinstance(given, datetime.date):
        return given.isoformat()
    if not isinstance(given, str):
        raise ValueError(given)
    return datetime.date.fromisoformat(given).isoformat()
