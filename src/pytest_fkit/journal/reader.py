"""Reads journals, and checks them: anybody may have made, or cut, the file."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Iterator

from ..own import own_builtins
from .events import FORMAT, MAJOR, SCHEMA, Event
from .shapes import Shapes, schema

own_builtins(globals())

_GZIP = b"\x1f\x8b"  # RFC 1952
_DIGITS = 20  # of an integer of 64 bits, with its sign

_SHAPES = Shapes(schema())


class JournalError(Exception):
    """A file can't be read as a journal.

    :param place: the file, and the number of the line if it is about one.
    """

    def __init__(self, place: str, text: str) -> None:
        super().__init__(f"{place}: {text}")


def read(path: Path) -> list[Event]:
    """All events of a journal; a torn last line is left out.

    :raises JournalError: if it can't be read, is no journal, or has another major version.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise JournalError(str(path), f"can't be read: {error.strerror}") from None
    return of_file(data, str(path))


def of_file(data: bytes, name: str) -> list[Event]:
    """The same of a file that is read already.

    :param name: of the file, for errors.
    :raises JournalError: see :func:`read`.
    """
    if data.startswith(_GZIP):
        raise JournalError(name, "it is compressed; `gunzip` it first")
    return list(parse(data, name))


def whole_lines(data: bytes) -> int:
    """How many leading bytes are whole lines."""
    return data.rfind(b"\n") + 1


def parse(data: bytes, name: str) -> Iterator[Event]:
    """The events in the whole lines."""
    number = 0
    for number, line in enumerate(_whole_lines(data), 1):
        place = f"{name}:{number}"
        happened = _event(line, place)
        if happened["event"] == "run":
            _check_version(happened, place)
        elif number == 1:
            raise JournalError(place, "not a journal of pytest-fkit: it does not begin with a run")
        wrong = _SHAPES.misfit(happened)
        if wrong:
            what = f"{happened['event']!r} with a missing or invalid {wrong!r}"
            raise JournalError(place, f"not a line of a journal: {what}")
        yield happened
    if number == 0:
        raise JournalError(name, "not a journal of pytest-fkit: it has no complete line")


def _whole_lines(data: bytes) -> Iterator[bytes]:
    """One after the other: split, a large journal would be in memory twice."""
    start = 0
    while True:
        end = data.find(b"\n", start)
        if end < 0:
            return
        yield data[start:end]
        start = end + 1


def _event(line: bytes, place: str) -> Event:
    try:
        found: Any = _decode(line.decode())
    except (ValueError, RecursionError):
        raise JournalError(place, "not a line of a journal: it is not JSON") from None
    if not (isinstance(found, dict) and isinstance(found.get("event"), str) and "wall" in found):
        raise JournalError(place, "not a line of a journal: it has no event, or no time")
    return found


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _int(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(text)
    return int(text)


_decode = json.JSONDecoder(parse_constant=_float, parse_float=_float, parse_int=_int).decode


def _check_version(run: Event, place: str) -> None:
    if run.get("format") != FORMAT:
        raise JournalError(place, "not a journal of pytest-fkit, but another program's record")
    schema = str(run.get("schema", ""))
    major = re.match(r"[0-9]{1,9}(?=\.|$)", schema)
    if major is None or int(major[0]) != MAJOR:
        newer = major is not None and int(major[0]) > MAJOR
        hint = "; a newer pytest-fkit wrote it, and is needed to read it" if newer else ""
        raise JournalError(place, f"schema {schema or '?'}, where {SCHEMA} can be read{hint}")
