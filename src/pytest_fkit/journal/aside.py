"""A journal that is in the way of another: one that can be resumed is never overwritten."""

from __future__ import annotations

import itertools
import json
import shlex
import stat
from pathlib import Path
from typing import Iterator, NamedTuple, Sequence

from ..own import os, own_builtins
from .events import Event, encode
from .files import lock
from .reader import JournalError, parse, whole_lines

own_builtins(globals())

BEGINNING = encode({"event": "run"})[:-2]
"""Of the line that begins a run."""

_END = encode({"event": "end"})[:-2]
_OPTIONS = ("--fkit-journal", "--fkit-resume")


class Found(NamedTuple):
    """What is in a file.

    :param keep: whether it has to stay.
    :param run: the event that begins its last run, which did not end, if it is a journal.
    """

    keep: bool
    run: Event | None = None


class Aside(NamedTuple):
    """A file that was moved.

    :param path: where it is now.
    :param run: see :class:`Found`.
    """

    path: Path
    run: Event | None


def set_aside(path: Path) -> Aside | None:
    """Move the file at `path` to ``PATH.1``, or the next number that is free, if it has to stay.

    :return: None where nothing is there that has to.
    :raises OSError: if that can't be.
    :raises InUseError: if another run writes it.
    """
    path = path.resolve()
    if not path.is_file():  # what is no file keeps nothing
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        lock(descriptor, path)
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            return None
        found = look_at(os.pread(descriptor, state.st_size, 0))
        if not found.keep:
            return None
        free = _reserve(path)
        path.replace(free)
    finally:
        os.close(descriptor)
    return Aside(free, found.run)


def _reserve(path: Path) -> Path:
    """A name that nobody else has, or gets."""
    for number in itertools.count(1):
        name = path.with_name(f"{path.name}.{number}")
        try:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        except FileExistsError:
            continue
        return name
    raise AssertionError


def look_at(data: bytes) -> Found:
    """Whether what a file holds has to stay: a run that did not end, and what is no journal."""
    whole = data[: whole_lines(data)]
    if not whole:  # empty, or the run was killed while it wrote its first line
        return Found(not BEGINNING.startswith(data[: len(BEGINNING)]))
    try:
        next(parse(whole[: whole.index(b"\n") + 1], ""))
    except JournalError:
        return Found(keep=True)
    begin = whole.rfind(b"\n" + BEGINNING) + 1
    if whole.find(b"\n" + _END, begin) != -1:
        return Found(keep=False)
    run: Event = json.loads(whole[begin : whole.index(b"\n", begin)])
    return Found(keep=True, run=run)


def command_to_resume(arguments: Sequence[str], journal: str, *, elsewhere: bool) -> str:
    """The command that goes on with a run.

    :param arguments: those with which it was started.
    :param journal: the path of its journal, from where the command will be given.
    :param elsewhere: whether ``--fkit-journal`` also comes from ``addopts``; of two the last
        counts.
    """
    kept = list(_without_journal(arguments))
    named = [f"--fkit-journal={journal}"] if elsewhere and kept == list(arguments) else []
    return " ".join(map(shlex.quote, ["pytest", *kept, *named, f"--fkit-resume={journal}"]))


def _without_journal(arguments: Sequence[str]) -> Iterator[str]:
    rest = iter(arguments)
    for each in rest:
        if each in _OPTIONS:
            next(rest, None)
        elif not each.startswith(tuple(f"{name}=" for name in _OPTIONS)):
            yield each
