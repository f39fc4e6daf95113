"""The checkout of a run, as far as it can be compared with another one at little cost."""

from __future__ import annotations

import fnmatch
from typing import Iterable, Iterator, Sequence

import pytest

from ...named_tuple import NamedTuple
from ...own import os, own_builtins, suppress
from ...system import git, paths

own_builtins(globals())

_MOST_FILES = 1000
_MOST_ENTRIES = 10_000
"""Files that are compared, and entries that are looked at: a network may be in between."""

_MOST_BYTES = 1 << 28
"""Total size of the files whose content is compared."""


class Checkout(NamedTuple):
    """What is here, and has to be on every machine.

    :param paths: directories and files that have to be there.
    :param sizes: bytes of the ini file, conftest files and test files, by path.
    :param commit: "" if that is not known.
    :param top: the directory that was checked out, "" if that is not known.
    :param without: patterns of names of directories that don't belong to it.
    """

    paths: tuple[str, ...]
    sizes: dict[str, int]
    commit: str = ""
    top: str = ""
    without: tuple[str, ...] = ()

    def files(self) -> list[str] | None:
        """All its files, None if they are too many to be compared."""
        found: list[str] = []
        size = 0
        for entry in _files_below([self.top], (*self.without, ".git", "__pycache__")):
            if len(found) == _MOST_ENTRIES or size > _MOST_BYTES:
                return None
            found.append(entry.path)
            with suppress(OSError):  # it is gone, or a link to nowhere
                size += entry.stat().st_size
        return found


def checkout_of(config: pytest.Config) -> Checkout:
    root, directory = str(config.rootpath), str(config.invocation_params.dir)
    arguments = [paths.joined(directory, str(each).partition("::")[0]) for each in config.args]
    arguments = [each for each in arguments if os.path.exists(each)]
    there = [root, directory, *arguments]
    files = [f"{each}/conftest.py" for each in _above(arguments, root)]
    if config.inipath is not None:
        there.append(str(config.inipath))
        files.insert(0, str(config.inipath))
    sizes: dict[str, int] = {}
    patterns = ["conftest.py", *config.getini("python_files")]
    for path in (*files, *_test_files(arguments, patterns, config.getini("norecursedirs"))):
        if len(sizes) == _MOST_FILES:
            break
        with suppress(OSError):  # there is none, or it is gone
            sizes[path] = os.path.getsize(path)
    return Checkout(
        tuple(dict.fromkeys(there)),
        sizes,
        git.head(root).commit,
        git.top(root),
        tuple(config.getini("norecursedirs")),
    )


def _above(arguments: Iterable[str], root: str) -> dict[str, None]:
    """The directories from the root down to the arguments."""
    found = {root: None}
    for path in arguments:
        while path.startswith(f"{root}/"):
            path = path.rpartition("/")[0]
            found[path] = None
    return found


def _test_files(
    arguments: Sequence[str], patterns: Sequence[str], without: Sequence[str]
) -> Iterator[str]:
    """Files that the arguments name, and those below them that may have tests.

    :param without: patterns of names of directories that pytest does not look into.
    """
    yield from filter(os.path.isfile, arguments)
    for number, entry in enumerate(_files_below(filter(os.path.isdir, arguments), without)):
        if number == _MOST_ENTRIES:
            break
        if _fits(entry.path.rpartition("/")[0], entry.name, patterns):
            yield entry.path


def _files_below(directories: Iterable[str], without: Sequence[str]) -> Iterator[os.DirEntry[str]]:
    """Whatever is below these directories and is none itself; see :func:`_test_files`."""
    waiting = list(directories)
    while waiting:
        directory = waiting.pop(0)
        try:
            with os.scandir(directory) as found:
                inside = sorted(found, key=lambda each: each.name)
        except OSError:
            continue
        for each in inside:
            if not each.is_dir(follow_symlinks=False):
                yield each
            elif not _fits("", each.name, without):
                waiting.append(each.path)


def _fits(directory: str, name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns is that of a file, as pytest understands them."""
    return any(
        fnmatch.fnmatch(f"{directory}/{name}", f"*/{each}")
        if "/" in each
        else fnmatch.fnmatch(name, each)
        for each in patterns
    )
