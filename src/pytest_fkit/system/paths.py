"""Paths as text, and small files, without pathlib, which calls ``os`` and can be faked.

pyfakefs puts a class of its own in the place of Path wherever a module has that name.
"""

from __future__ import annotations

import re
import stat
from typing import Iterable

from ..own import os, own_builtins, suppress

own_builtins(globals())

_CHUNK = 4096
"""Bytes; the kernel makes text of /proc in such pieces."""


def below(path: str, directory: str) -> str | None:
    """The path from `directory` on, None where it is not below; both absolute and normal."""
    start = directory if directory.endswith("/") else f"{directory}/"
    return (path[len(start) :] or None) if path.startswith(start) else None


def joined(directory: str, path: str) -> str:
    """A path that may be relative to `directory`."""
    return path if path.startswith("/") else f"{directory.rstrip('/')}/{path}"


def relative(path: str, start: str) -> str:
    """The way from the directory `start` to a path; both absolute and normal."""
    there, here = (list(filter(None, each.split("/"))) for each in (path, start))
    common = 0
    while common < min(len(there), len(here)) and there[common] == here[common]:
        common += 1
    return "/".join([*[".."] * (len(here) - common), *there[common:]]) or "."


def base_name(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]


def make_directory(path: str) -> None:
    """Make a directory, and those above it, unless it is there.

    :raises OSError: if it can't be made.
    """
    try:
        os.mkdir(path)
    except FileNotFoundError:
        above = path.rstrip("/").rpartition("/")[0]
        if not above:
            raise
        make_directory(above)
        os.mkdir(path)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise


_NOT_IN_NAMES = re.compile("[^A-Za-z0-9_.=,@+-]+")
_LONGEST_NAME = 200


def file_name(text: str) -> str:
    """The name of a file for a test's node id; the end of a long one."""
    return _NOT_IN_NAMES.sub("-", text)[-_LONGEST_NAME:].strip("-.") or "-"


def claim_directory(directory: str, name: str) -> str:
    """Make a new one in a directory, with a number behind its name if that is taken.

    :raises OSError: if it can't be made.
    """
    make_directory(directory)
    number = 1
    while True:
        path = joined(directory, name if number == 1 else f"{name}-{number}")
        try:
            os.mkdir(path)
        except FileExistsError:
            number += 1
        else:
            return path


def remove_tree(path: str) -> None:
    """Remove a directory with all that is in it, as far as that can be done."""
    try:
        entries = list(os.scandir(path))
    except OSError:
        entries = []
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                remove_tree(entry.path)
            else:
                os.unlink(entry.path)
        except OSError:
            continue
    with suppress(OSError):
        os.rmdir(path)


def holds(path: str) -> bool:
    """Whether there is something in a directory."""
    try:
        return bool(os.listdir(path))
    except OSError:
        return False


def program(name: str, directories: Iterable[str]) -> str:
    """Path of a program in the first of these directories that has it, "" if none has."""
    found = (f"{directory or '.'}/{name}" for directory in directories)
    return next(filter(_is_program, found), "")


def _is_program(path: str) -> bool:
    try:
        is_directory = stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return False
    return not is_directory and os.access(path, os.X_OK)


def read_bytes(path: str) -> bytes:
    """The content of a file, which may be one of /proc, whose size is not known before.

    :raises OSError: if that can't be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = [os.read(descriptor, _CHUNK)]
        while chunks[-1]:
            chunks.append(os.read(descriptor, _CHUNK))
    finally:
        os.close(descriptor)
    return b"".join(chunks)


def read_text(path: str) -> str:
    """The same as text.

    :raises OSError: if that can't be read.
    """
    return read_bytes(path).decode("utf-8", "replace")


def read_lines(path: str) -> list[str]:
    """Its lines that are not empty; only line feeds end them, since they may contain file names.

    :raises OSError: if that can't be read.
    """
    return list(filter(None, read_text(path).split("\n")))
