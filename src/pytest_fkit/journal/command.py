"""The console script ``fkit``: what can be made of journals."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Callable, Iterable, Iterator, Sequence

from .events import Event, encode
from .history import history
from .reader import JournalError, read
from .summary import slowest, summary, table
from .trace import lines

Output = Iterable[bytes]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    :return: the exit status: 0, or 2 where a journal or an argument can't be used.
    """
    options = _parser().parse_args(arguments)
    make: Callable[[argparse.Namespace], Output] = options.make
    try:
        _write(options.output, make(options))
    except (JournalError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader, `head` for example, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0
        sys.stderr.write(f"fkit: {error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fkit", description="Reads the journals that pytest --fkit-journal writes."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, make, text in (
        ("summary", _summary, "how many tests had which verdict, and what went wrong"),
        ("slowest", _slowest, "the tests that took longest, with what they used"),
        ("trace", _trace, "a timeline for ui.perfetto.dev"),
        ("csv", _csv, "one row per test"),
        ("merge", _merge, "one journal of several, as of the shards of a CI matrix"),
    ):
        command = commands.add_parser(name, help=text, description=f"Write {text}.")
        command.set_defaults(make=make)
        command.add_argument("journals", metavar="JOURNAL", nargs="+", type=Path)
        command.add_argument(
            "-o", "--output", metavar="PATH", type=Path, help="default: standard output"
        )
        if name == "slowest":
            command.add_argument("-n", "--number", type=_number, default=20, help="default: 20")
    return parser


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tests")
    return int(text)


def _write(path: Path | None, output: Output) -> None:
    # All is read before the file is made: it may be one of the journals.
    data = b"".join(output)
    if path is not None:
        try:
            path.write_bytes(data)
        except OSError as error:
            raise JournalError(str(path), f"can't be written: {error.strerror}") from None
        return
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _events(paths: Sequence[Path]) -> list[Event]:
    """The events of all journals, one journal after the other, the earliest first.

    :raises JournalError: if one can't be read, or two are of the same session.
    """
    journals = [(path, read(path)) for path in paths]
    journals.sort(key=lambda each: float(each[1][0]["wall"]))
    seen: dict[str, Path] = {}
    for path, events in journals:
        sessions = {str(each.get("session")) for each in events if each["event"] == "run"}
        for session in sessions & seen.keys():
            raise JournalError(str(path), f"has the same run as {seen[session]}; give one of them")
        seen.update(dict.fromkeys(sessions, path))
    return [each for _, events in journals for each in events]


def _text(made: Iterator[str]) -> Output:
    return (f"{line}\n".encode("utf-8", "backslashreplace") for line in made)


def _summary(options: argparse.Namespace) -> Output:
    return _text(summary(history(_events(options.journals))))


def _slowest(options: argparse.Namespace) -> Output:
    return _text(slowest(history(_events(options.journals)), options.number))


def _trace(options: argparse.Namespace) -> Output:
    return lines(_events(options.journals))


def _csv(options: argparse.Namespace) -> Output:
    return (row.encode() for row in table(history(_events(options.journals))))


def _merge(options: argparse.Namespace) -> Output:
    return (encode(each) for each in _events(options.journals))
