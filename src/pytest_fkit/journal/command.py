"""The console script ``fkit``, which reads journals."""

from __future__ import annotations

import argparse
import errno
import functools
import gc
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Iterable, Mapping, Sequence

from .. import __version__
from ..config.values import parse_mask
from ..protocol.descriptors import write_all
from . import diff, quarantine_check, trace
from .events import encode
from .html.page import MissingExtraError, page
from .junit import document, suites
from .masking import Masking
from .reader import JournalError
from .subcommand import (
    STANDARD,
    Answer,
    Subcommand,
    as_json,
    events_of,
    journals,
    of_events,
    of_history,
    text,
)
from .summary import failed, rows, slowest, slowest_rows, summary, summary_values, table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    :return: the exit status: that of the answer, or 2 where a journal or an argument can't be used.
    """
    options = _parser().parse_args(arguments)
    # What is read holds no cycles, and there is much of it to go through in vain.
    collects = gc.isenabled()
    gc.disable()
    try:
        answer: Answer = options.command.formats[options.format](options)
        _write(options.output, answer.output)
    except BrokenPipeError:  # the reader, `head` for example, has enough
        return 0
    except (JournalError, MissingExtraError, OSError) as error:
        return _failed(str(error))
    except MemoryError:
        return _failed("it takes more memory than there is; give fewer journals at a time")
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        if collects:
            gc.enable()
    return answer.status


@functools.lru_cache(maxsize=None)
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fkit", description="Reads the journals that pytest --fkit-journal writes."
    )
    parser.add_argument("--version", action="version", version=f"pytest-fkit {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    groups = {"": commands}
    for name, command in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        if group not in groups:
            names = [each.split(" ")[1] for each in COMMANDS if each.startswith(f"{group} ")]
            inner = commands.add_parser(group, help=f"commands: {', '.join(names)}")
            groups[group] = inner.add_subparsers(metavar="COMMAND", required=True)
        _declare(
            groups[group].add_parser(
                last,
                help=command.text,
                description=f"Write {command.text}.",
                epilog="\n".join(["examples:", *(f"  {each}" for each in command.examples)]),
                formatter_class=argparse.RawDescriptionHelpFormatter,
            ),
            command,
        )
    return parser


def _declare(parser: argparse.ArgumentParser, command: Subcommand) -> None:
    parser.set_defaults(command=command)
    command.declare(parser)
    names = list(command.formats)
    parser.add_argument("--format", choices=names, default=names[0], help=f"default: {names[0]}")
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        type=Path,
        help="file to write; default: -, standard output",
    )


def _failed(text: str) -> int:
    if sys.stderr is not None:  # as after 2>&-
        sys.stderr.write(f"fkit: {text}\n")
    return 2


def _write(path: Path | None, output: Iterable[bytes]) -> None:
    # Read everything before a file is changed: it may be one of the journals.
    data = b"".join(output)
    file = None if path is None or str(path) == STANDARD else path
    try:
        if file is None:
            _write_standard(data)
        else:
            _write_file(file, data)
    except BrokenPipeError:
        raise
    except OSError as error:
        name = str(file or "standard output")
        raise JournalError(name, f"can't be written: {error.strerror or error}") from None


def _write_standard(data: bytes) -> None:
    if sys.stdout is None:
        raise OSError(errno.EBADF, "it is closed")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError:
        # Python flushes what is left once more when it exits, and would fail with status 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise


def _write_file(path: Path, data: bytes) -> None:
    """Write a file. If there is no room for it, it stays as it was."""
    is_new = not os.path.lexists(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            write_all(descriptor, data)
            return
        try:
            _make_room(descriptor, len(data))
        except OSError:
            os.ftruncate(descriptor, state.st_size)
            if is_new:
                path.unlink()
            raise
        write_all(descriptor, data)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)


def _make_room(descriptor: int, size: int) -> None:
    """Have the file system set so many bytes aside, where it can.

    :raises OSError: if it has not so many.
    """
    if size == 0 or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


def _number(given: str) -> int:
    if not given.isdecimal():
        raise argparse.ArgumentTypeError(f"{given!r} is not a number of tests")
    return int(given)


def _group(parser: argparse.ArgumentParser) -> None:
    journals(parser)
    parser.add_argument("--group", action="store_true", help="group failures by cause")


def _how_many(parser: argparse.ArgumentParser) -> None:
    journals(parser)
    parser.add_argument(
        "-n", "--number", type=_number, default=20, help="how many tests; default: 20"
    )


def _more_masks(parser: argparse.ArgumentParser) -> None:
    journals(parser)
    parser.add_argument(
        "--mask", metavar="NAME|/REGEX/", type=_mask, action="append", default=[],
        help="mask more secrets, as the ini value fkit_mask does",
    )  # fmt: skip


def _mask(given: str) -> tuple[str, str]:
    try:
        return parse_mask(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _html(options: argparse.Namespace) -> Answer:
    mask = Masking(options.mask).event
    return Answer([page([mask(each) for each in events_of(options.journals)])])


COMMANDS: Mapping[str, Subcommand] = {
    "summary": Subcommand(
        "counts by outcome, and what went wrong",
        ("fkit summary run.jsonl", "fkit summary --group shard-*.jsonl"),
        {
            "text": of_history(lambda told, options: text(summary(told, options.group))),
            "json": of_history(lambda told, _: as_json(summary_values(told))),
        },
        _group,
    ),
    "slowest": Subcommand(
        "the slowest tests, with time, CPU time and memory",
        ("fkit slowest run.jsonl", "fkit slowest -n 5 --format=json run.jsonl"),
        {
            "text": of_history(lambda told, options: text(slowest(told, options.number))),
            "json": of_history(lambda told, options: as_json(slowest_rows(told, options.number))),
        },
        _how_many,
    ),
    "trace": Subcommand(
        "a timeline for ui.perfetto.dev",
        ("fkit trace run.jsonl -o run.json",),
        {"json": of_events(trace.lines)},
    ),
    "csv": Subcommand(
        "one row per test",
        ("fkit csv run.jsonl -o run.csv", "fkit csv --format=json run.jsonl"),
        {
            "csv": of_history(lambda told, _: (row.encode() for row in table(told))),
            "json": of_history(lambda told, _: as_json(rows(told))),
        },
    ),
    "html": Subcommand(
        "an HTML report: one file that needs no network",
        ("fkit html run.jsonl -o report.html", "fkit html shard-*.jsonl -o report.html"),
        {"html": _html},
        _more_masks,
    ),
    "merge": Subcommand(
        "one journal made from several, such as the shards of a CI matrix",
        ("fkit merge shard-*.jsonl -o run.jsonl",),
        {
            "jsonl": of_events(lambda events: map(encode, events)),
            "json": of_events(as_json),
        },
    ),
    "failed": Subcommand(
        "the node ids of the tests that failed, one per line",
        ("fkit failed run.jsonl > failed.txt && test -s failed.txt && pytest @failed.txt",),
        {
            "text": of_history(lambda told, _: text(failed(told))),
            "json": of_history(lambda told, _: as_json(failed(told))),
        },
    ),
    "junit": Subcommand(
        "JUnit XML, also of a run that was killed",
        ("fkit junit run.jsonl -o junit.xml", "fkit junit shard-*.jsonl -o junit.xml"),
        {
            "xml": of_history(lambda told, _: [document(suites(told))]),
            "json": of_history(lambda told, _: as_json(suites(told))),
        },
    ),
    "diff": Subcommand(
        "what has changed between two runs; exits with 1 for new failures, or other causes",
        (
            "fkit diff yesterday.jsonl run.jsonl",
            "fkit diff --old main-*.jsonl --new shard-*.jsonl --format=md >> comment.md",
        ),
        diff.FORMATS,
        diff.arguments,
    ),
    "quarantine check": Subcommand(
        "which entries of a quarantine have expired, match no test, or pass; exits with 1 if any",
        ("fkit quarantine check quarantine.toml nightly-*.jsonl",),
        quarantine_check.FORMATS,
        quarantine_check.arguments,
    ),
}
