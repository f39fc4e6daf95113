"""Commit and branch of a checkout, read from git's files (gitrepository-layout(5)).

Not from the program: it refuses checkouts of other users, as containers of CI systems have them.
"""

from __future__ import annotations

import re

from ..named_tuple import NamedTuple
from ..own import os, own_builtins
from .paths import joined, read_text

own_builtins(globals())

_OBJECT = re.compile("[0-9a-f]{40}(?:[0-9a-f]{24})?")
_DEEPEST = 100


class Head(NamedTuple):
    """What is checked out; "" for what is not known."""

    commit: str = ""
    branch: str = ""


def head(directory: str) -> Head:
    """The head of the checkout that a directory lies in.

    :param directory: an absolute path.
    """
    for _ in range(_DEEPEST):
        found = _text(f"{directory.rstrip('/')}/.git/HEAD")
        if found:
            return _head(f"{directory.rstrip('/')}/.git", found)
        link = _text(f"{directory.rstrip('/')}/.git")  # of a worktree or a submodule
        if link.startswith("gitdir: "):
            git = joined(directory, link[len("gitdir: ") :])
            return _head(git, _text(f"{git}/HEAD"))
        if directory == "/":
            break
        directory = directory.rstrip("/").rpartition("/")[0] or "/"
    return Head()


def top(directory: str) -> str:
    """The directory that was checked out and that another one lies in, "" if there is none."""
    for _ in range(_DEEPEST):
        if os.path.exists(f"{directory.rstrip('/')}/.git"):
            return directory
        if directory == "/":
            break
        directory = directory.rstrip("/").rpartition("/")[0] or "/"
    return ""


def _head(git: str, text: str) -> Head:
    """What HEAD says: a commit, or where the commit of a branch is."""
    if not text.startswith("ref: "):
        return Head(_commit(text))
    name = text[len("ref: ") :]
    commit = _commit(_text(f"{git}/{name}"))
    if not commit:  # branches of a worktree are with the checkout that it belongs to
        link = _text(f"{git}/commondir")
        common = joined(git, link) if link else git
        commit = _commit(_text(f"{common}/{name}")) or _packed(common, name)
    prefix = "refs/heads/"
    # ".invalid" where branches are in a format of their own, reftable.
    branch = name[len(prefix) :] if name.startswith(prefix) and name != f"{prefix}.invalid" else ""
    return Head(commit, branch)


def _packed(git: str, name: str) -> str:
    """The commit of a branch that has no file of its own."""
    for line in _text(f"{git}/packed-refs").split("\n"):
        commit, _, packed = line.partition(" ")
        if packed == name:
            return _commit(commit)
    return ""


def _commit(text: str) -> str:
    return text if _OBJECT.fullmatch(text) else ""


def _text(path: str) -> str:
    try:
        return "" if os.path.isdir(path) else read_text(path).strip()
    except OSError:
        return ""
