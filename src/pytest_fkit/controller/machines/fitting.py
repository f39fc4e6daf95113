"""Whether another machine can run tests of this run: it has to have what is here."""

from __future__ import annotations

from typing import Iterable, Mapping, Sequence

from ...named_tuple import NamedTuple
from ...own import own_builtins
from .checkout import Checkout

own_builtins(globals())

DISTRIBUTION = "pytest-forkit"

ALWAYS = (DISTRIBUTION, "pytest", "pytest-xdist", "execnet")
"""Distributions that every run needs."""


class Needed(NamedTuple):
    """What a machine has to have.

    :param python: as in "3.11".
    """

    python: str
    versions: Mapping[str, str]
    checkout: Checkout


class Answers(NamedTuple):
    """What a machine says of itself, see :mod:`.questions`.

    :param versions: "" for what is not installed.
    :param missing: paths that are not there.
    :param differing: files that have another size there.
    :param commit: that is checked out there, "" if that is not known.
    :param other: path of a file that has another content there, or is not there, if the commit is
        another one; "" where all have the same, and the commit does not matter; None if not known.
    :param boot: equal for machines that are one, or containers of one; "" if that is not known.
    """

    host: str
    executable: str
    python: str
    versions: Mapping[str, str]
    missing: Sequence[str]
    cores: int
    differing: Sequence[str] = ()
    commit: str = ""
    boot: str = ""
    other: str | None = None


def misfits(needed: Needed, answers: Answers) -> list[str]:
    """What keeps a machine from running the tests, as a user would say it."""
    found = []
    if answers.python != needed.python:
        found.append(
            f"Python is {answers.python} there ({answers.executable}), {needed.python} here"
        )
    absent = [name for name in needed.versions if not answers.versions[name]]
    if absent:
        found.append(f"{_listed(absent)} {_be(absent)} not installed for {answers.executable}")
    found += [
        f"{name} is {answers.versions[name]} there, {version} here"
        for name, version in needed.versions.items()
        if answers.versions[name] not in ("", version)
    ]
    missing, differing = answers.missing, answers.differing
    if missing:
        found.append(f"{_some(missing)} {_be(missing)} {_NOT_THERE}")
    if differing:
        found.append(f"{_some(differing)} {_be(differing)} {_OTHERWISE}")
    here, there = needed.checkout.commit, answers.commit
    if here and there and here != there and answers.other != "":
        file = f", with another {answers.other}" if answers.other else ""
        found.append(f"commit {there[:12]} is checked out there{file}, {here[:12]} {_HERE}")
    return found


_NOT_THERE, _OTHERWISE, _HERE = "not there", "not the same as here", "in this checkout"


def advice(found: Iterable[Sequence[str]]) -> str:
    lines = [line for lines in found for line in lines]
    paths = any(line.endswith(_NOT_THERE) for line in lines)
    content = any(line.endswith((_OTHERWISE, _HERE)) for line in lines)
    versions = any(not line.endswith((_NOT_THERE, _OTHERWISE, _HERE)) for line in lines)
    said = []
    if versions:
        said.append(
            "install the same there, or name a Python that has it with --fkit-machines-python"
        )
    if paths:
        said.append("put the checkout at the same path as here, or on a file system that both see")
    elif content:
        said.append("bring the checkout there to the state of the one here")
    return "; ".join(said)


def twins(machines: Mapping[str, Answers]) -> list[str]:
    """What to say of machines that are one machine with several names.

    Containers of one machine have host names of their own.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for name, each in machines.items():
        if each.boot:
            found.setdefault((each.host, each.boot), []).append(name)
    return [
        f"{_listed(names)} are one machine, {host}: they share its cores and GPUs"
        for (host, _), names in found.items()
        if len(names) > 1
    ]


_HINTS = (
    # Of OpenSSH's client, sshconnect.c and sshconnect2.c.
    ("Host key verification failed", "its key is not known here: connect once"),
    ("Permission denied (", "no password is asked for: use a key, or an agent, and try"),
)


def hint(reason: str) -> str:
    """What to do about a machine that is not reached, before a command to try by hand."""
    found = (said for words, said in _HINTS if words in reason)
    return next(found, "leave it out, name another Python with --fkit-machines-python, or try")


_SHOWN = 3
"""Paths that are named of those that are missing or differ."""


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return _listed(names if more < 1 else [*names[:_SHOWN], f"{more} more"])


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _be(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
