"""What a command of ``fkit`` consists of, and what several of them need."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

from ..named_tuple import NamedTuple
from .events import Event
from .history import History, history
from .reader import JournalError, of_file, read

STANDARD = "-"
"""Stands for standard input or output, where a path is expected."""


class Answer(NamedTuple):
    """What a command has to say.

    :param status: with which ``fkit`` exits.
    """

    output: Iterable[bytes]
    status: int = 0


Make = Callable[[argparse.Namespace], Answer]


def journals(parser: argparse.ArgumentParser) -> None:
    """Declare the journals, one at least."""
    parser.add_argument(
        "journals", metavar="JOURNAL", nargs="+", type=Path,
        help="what --fkit-journal wrote; - is standard input",
    )  # fmt: skip


class Subcommand(NamedTuple):
    """One command.

    :param text: what it writes, to follow the word "Write".
    :param examples: command lines, for its help.
    :param formats: by the name that ``--format`` takes, what makes the answer; the first is the
        default.
    """

    text: str
    examples: Sequence[str]
    formats: Mapping[str, Make]
    declare: Callable[[argparse.ArgumentParser], None] = journals


def of_events(make: Callable[[list[Event]], Iterable[bytes]]) -> Make:
    """An answer made of the events of all journals."""
    return lambda options: Answer(make(events_of(options.journals)))


def of_history(make: Callable[[History, argparse.Namespace], Iterable[bytes]]) -> Make:
    """An answer made of what the journals say, put together."""
    return lambda options: Answer(make(history(events_of(options.journals)), options))


def events_of(paths: Sequence[Path]) -> list[Event]:
    """The events of all journals, one journal after the other, the earliest first.

    :raises JournalError: if one can't be read, or two are of the same session.
    """
    found = [(path, _events(path)) for path in paths]
    found.sort(key=lambda each: float(each[1][0]["wall"]))
    seen: dict[str, Path] = {}
    for path, events in found:
        sessions = {str(each.get("session")) for each in events if each["event"] == "run"}
        for session in sessions & seen.keys():
            raise JournalError(str(path), f"has the same run as {seen[session]}; give one of them")
        seen.update(dict.fromkeys(sessions, path))
    return [each for _, events in found for each in events]


def _events(path: Path) -> list[Event]:
    if str(path) != STANDARD:
        return read(path)
    if sys.stdin is None:
        raise JournalError("standard input", "can't be read: it is closed")
    return of_file(sys.stdin.buffer.read(), "standard input")


def text(lines: Iterable[str]) -> Iterator[bytes]:
    """Lines, of which a lone surrogate makes no error."""
    return (f"{line}\n".encode("utf-8", "backslashreplace") for line in lines)


def as_json(value: Any) -> Iterator[bytes]:
    """One JSON document, indented, in ASCII."""
    yield json.dumps(value, indent=2, allow_nan=False).encode() + b"\n"
