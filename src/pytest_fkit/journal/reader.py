"""Reads journals, and checks them: anybody may have made, or cut, the file."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Iterator, Mapping

from ..own import own_builtins
from .events import FORMAT, MAJOR, SCHEMA, Event

own_builtins(globals())

_GZIP = b"\x1f\x8b"  # RFC 1952
_DIGITS = 20  # of an integer of 64 bits, with its sign

LATEST = 1e11
"""Seconds since the epoch: no journal is from later, and dates end in the year 9999."""

_MOST = 1e20
"""Above all figures of a machine; larger ones could overflow floats when they are multiplied."""


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
    if data.startswith(_GZIP):
        raise JournalError(str(path), "it is compressed; `gunzip` it first")
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
        wrong = _bad_field(happened)
        if wrong:
            what = f"{happened['event']!r} with no, or a bad, {wrong!r}"
            raise JournalError(place, f"not a line of a journal: {what}")
        yield happened
    if number == 0:
        raise JournalError(name, "not a journal of pytest-fkit: there is no whole line in it")


def _event(line: bytes, place: str) -> Event:
    try:
        found: Any = _decode(line.decode())
    except (ValueError, RecursionError):
        raise JournalError(place, "not a line of a journal: it is no JSON") from None
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
        raise JournalError(place, "not a journal of pytest-fkit, but something else's record")
    schema = str(run.get("schema", ""))
    major = re.match(r"[0-9]{1,9}(?=\.|$)", schema)
    if major is None or int(major[0]) != MAJOR:
        newer = major is not None and int(major[0]) > MAJOR
        hint = "; a newer pytest-fkit wrote it, and is needed to read it" if newer else ""
        raise JournalError(place, f"schema {schema or '?'}, where {SCHEMA} can be read{hint}")


# --- the shapes of fields ---

# A shape is `str`, `float` (any number), `object` (anything), a list with the shape of its
# elements, a tuple with one for each element of a list, a dict with that of all its values under
# the key "*", or with those of its fields, where the names of optional ones end in "?". None in a
# set with another shape allows null.

_PAIRS = [(str, object)]
_TIMES = {"start": float, "duration": float}
_REPORT = {
    "when": str, "outcome": str, "duration": float, "start?": float, "text?": str, "message?": str,
    "xfail?": str, "fkit_death?": str, "skip?": (str, object, str), "properties?": _PAIRS,
    "sections?": [(str, str)], "rerun?": float, "added?": {"*": [object]},
}  # fmt: skip
_WORKER = {"worker": str}
_TEST = {"test": str, **_WORKER}
_GPUS = {"gpus?": [str], "to?": str, "to_gpus?": [str], "reason?": str, "category?": str}
_XID = {
    "xid": float, "gpus": [str], "name?": str, "source?": str, "pid?": float, "process?": str,
    "message?": str,
}  # fmt: skip
_ANY_FIELDS = {"*": object}

_SHAPES: Mapping[str, Mapping[str, Any]] = {
    "run": {
        "session?": str, "arguments?": [str], "machine?": _ANY_FIELDS, "versions?": {"*": str},
        "options?": _ANY_FIELDS, "slices?": {"*": [str]}, "drivers?": {"*": str},
        "commit?": str, "branch?": str, "job?": str, "rootdir?": str, "directory?": str,
    },
    "worker_up": {**_WORKER, **_GPUS},
    "worker_down": _WORKER,
    "collection": {**_WORKER, "nodeids?": [str]},
    "resume": {"gone?": [str]},
    "start": _TEST,
    "report": _TEST,
    "attempt": {
        **_TEST, **_TIMES, "attempt?": float,
        "phases?": [{"when": str, "outcome": str, **_TIMES}],
        "wide?": [{"what": str, "label": str, **_TIMES}],
        "ending?": _ANY_FIELDS, "metrics?": _ANY_FIELDS, "xids?": [_XID], "user?": float,
        "system?": float, "peak_memory?": float, **_GPUS,
    },
    "verdict": {
        **_TEST, "attempt?": float, "outcome?": str, "message?": str, "reports?": [_REPORT],
        "location?": {None, (str, frozenset({None, float}), str)},
    },
    "gpus": {"used": {"*": {"*": float}}},
    "xid": _XID,
    "slow": {**_TEST, **_GPUS},
    "running": {**_TEST, **_GPUS},
    "gpu_error": {**_TEST, **_GPUS},
    "retried": {**_TEST, **_GPUS},
    "probed": {**_WORKER, **_GPUS},
    "retired": {**_WORKER, **_GPUS},
    "readmitted": {**_WORKER, **_GPUS},
}  # fmt: skip


def _bad_field(happened: Event) -> str:
    """The name of a field that is missing or has the wrong shape; "" if there is none.

    Fields and events that are not known may be anything.
    """
    if not (_fits(happened["wall"], float) and 0 <= happened["wall"] < LATEST):
        return "wall"
    return _misfit(happened, _SHAPES.get(str(happened["event"]), {}))


def _misfit(value: Event, fields: Mapping[str, Any]) -> str:
    for field, shape in fields.items():
        name = field.rstrip("?")
        if name in value and not _fits(value[name], shape):
            return name
        if name not in value and name == field:
            return name
    return ""


def _fits(value: Any, shape: Any) -> bool:
    if shape is object:
        return True
    if shape is float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and abs(value) < _MOST
    if isinstance(shape, (set, frozenset)):
        return value is None or all(_fits(value, each) for each in shape if each is not None)
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(each, shape[0]) for each in value)
    if isinstance(shape, tuple):
        return (
            isinstance(value, list) and len(value) == len(shape) and all(map(_fits, value, shape))
        )
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return False
        if "*" in shape:
            return all(_fits(each, shape["*"]) for each in value.values())
        return not _misfit(value, shape)
    return isinstance(value, shape)
