"""Whether another machine can run tests of this run: it has to have what is here."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

from ...named_tuple import NamedTuple
from ...own import own_builtins

own_builtins(globals())

OWN = "pytest-forkit"

ALWAYS = (OWN, "pytest", "pytest-xdist", "execnet")
"""Distributions that every run needs."""


class Needed(NamedTuple):
    """What a machine has to have.

    :param python: as in "3.11".
    :param versions: of distributions.
    :param paths: the checkout.
    """

    python: str
    versions: Mapping[str, str]
    paths: tuple[str, ...]


class Answers(NamedTuple):
    """What a machine says of itself, see :mod:`.questions`.

    :param versions: "" for what is not installed.
    :param missing: paths that are not there.
    """

    host: str
    executable: str
    python: str
    versions: Mapping[str, str]
    missing: Sequence[str]
    cores: int

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Answers:
        return cls(**data)


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
    if answers.missing:
        found.append(f"{_listed(answers.missing)} {_be(answers.missing)} not there")
    return found


def advice(found: Iterable[Sequence[str]]) -> str:
    """What to do about all of that."""
    lines = [line for lines in found for line in lines]
    versions = any(not line.endswith(" not there") for line in lines)
    paths = any(line.endswith(" not there") for line in lines)
    said = []
    if versions:
        said.append(
            "install the same there, or name a Python that has it with --fkit-machines-python"
        )
    if paths:
        said.append("put the checkout at the same path as here, or on a file system that both see")
    return "; ".join(said)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _be(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
