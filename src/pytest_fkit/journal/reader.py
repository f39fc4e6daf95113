"""Journals, read back: up to the last whole line, or an error that names file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator

from .events import FORMAT, MAJOR, SCHEMA, Event


class JournalError(Exception):
    """A file can't be read as a journal.

    :param place: the file, and the number of the line if it is about one.
    """

    def __init__(self, place: str, text: str) -> None:
        super().__init__(f"{place}: {text}")


def read(path: Path) -> list[Event]:
    """All events of a journal; the last line is left out if it is torn.

    :raises JournalError: if it can't be read, or is no journal, or one of another major version.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise JournalError(str(path), f"can't be read: {error.strerror}") from None
    return list(parse(data[: whole_lines(data)], str(path)))


def whole_lines(data: bytes) -> int:
    """How many leading bytes are whole lines."""
    return data.rfind(b"\n") + 1


def parse(data: bytes, name: str) -> Iterator[Event]:
    """The events in whole lines.

    :param name: of the file, for errors.
    :raises JournalError: see :func:`read`.
    """
    number = 0
    for number, line in enumerate(data.splitlines(), 1):
        place = f"{name}:{number}"
        happened = _event(line, place)
        if happened["event"] == "run":
            _check_version(happened, place)
        elif number == 1:
            raise JournalError(place, "not a journal of pytest-fkit: it begins with no run")
        yield happened
    if number == 0:
        raise JournalError(name, "not a journal of pytest-fkit: there is no whole line in it")


def _event(line: bytes, place: str) -> Event:
    try:
        found: Any = json.loads(line)
    except ValueError:
        raise JournalError(place, "not a line of a journal: it is no JSON") from None
    if (
        not isinstance(found, dict)
        or not isinstance(found.get("event"), str)
        or not isinstance(found.get("wall"), (int, float))
    ):
        raise JournalError(place, "not a line of a journal: it has no event, or no time")
    return found


def _check_version(run: Event, place: str) -> None:
    if run.get("format") != FORMAT:
        raise JournalError(place, "not a journal of pytest-fkit, but something else's record")
    schema = str(run.get("schema", ""))
    major = schema.partition(".")[0]
    if not major.isdigit() or int(major) != MAJOR:
        newer = major.isdigit() and int(major) > MAJOR
        hint = "; a newer pytest-fkit wrote it, and is needed to read it" if newer else ""
        raise JournalError(place, f"schema {schema or '?'}, where {SCHEMA} can be read{hint}")
