"""The console script ``fkit``, which reads journals."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Callable, Iterable, Iterator, Mapping, Sequence

from . import trace
from .events import Event, encode
from .history import history
from .reader import JournalError, read
from .summary import slowest, summary, table

Output = Iterable[bytes]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    :return: the exit status: 0, or 2 where a journal or an argument can't be used.
    """
    options = _parser().parse_args(arguments)
    try:
        _write(options.output, options.make(_events(options.journals), options))
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
    for name, (text, make) in _COMMANDS.items():
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
    # Read everything before creating the file: it may be one of the journals.
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


def _text(lines: Iterator[str]) -> Output:
    return (f"{line}\n".encode("utf-8", "backslashreplace") for line in lines)


_COMMANDS: Mapping[str, tuple[str, Callable[[list[Event], argparse.Namespace], Output]]] = {
    "summary": (
        "how many tests had which verdict, and what went wrong",
        lambda events, _: _text(summary(history(events))),
    ),
    "slowest": (
        "the tests that took longest, with what they used",
        lambda events, options: _text(slowest(history(events), options.number)),
    ),
    "trace": ("a timeline for ui.perfetto.dev", lambda events, _: trace.lines(events)),
    "csv": (
        "one row per test",
        lambda events, _: (row.encode() for row in table(history(events))),
    ),
    "merge": (
        "one journal of several, as of the shards of a CI matrix",
        lambda events, _: map(encode, events),
    ),
}
