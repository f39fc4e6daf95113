"""Options of the pytest-fkit on PyPI (0.2.0 to 0.11.0) that are none here: whose names ours.

Those that are the same are in the table of options.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple, Sequence

import pytest

_ALWAYS = "each test has a process of its own, and --fkit-isolation=module has tests share one"
_RECORDS = (
    "--fkit-trace=PATH writes a timeline, --fkit-journal=PATH a record of which `fkit csv` makes a "
    "table"
)


class Other(NamedTuple):
    """An option that is accepted and does nothing.

    :param values: those that it has there, none of a switch.
    :param instead: what there is here.
    """

    flag: str
    values: Sequence[str]
    instead: str

    @property
    def name(self) -> str:
        """In the options' namespace."""
        return self.flag[2:].replace("-", "_")


ACCEPTED = (
    Other("--fkit-mode", ("batch", "isolate"), _ALWAYS),
    Other("--fkit-batch", (), _ALWAYS),
)

REFUSED = dict.fromkeys(
    ("--trace-metrics", "--trace-output", "--trace-json", "--trace-pysr"), _RECORDS
)
"""Options of 0.2 and 0.3, with what there is here: they would have written a file."""


def declare(group: pytest.OptionGroup) -> None:
    """Declare the accepted ones, without a word in ``--help``."""
    for each in ACCEPTED:
        if each.values:
            group.addoption(each.flag, help=argparse.SUPPRESS)
        else:
            group.addoption(each.flag, action="store_true", default=None, help=argparse.SUPPRESS)


def given(options: argparse.Namespace) -> list[Other]:
    """The accepted ones that the user gives."""
    return [each for each in ACCEPTED if getattr(options, each.name, None) is not None]


def notices(options: argparse.Namespace) -> list[str]:
    """What the user has to know about them.

    :raises pytest.UsageError: for a value that there is not.
    """
    found: dict[str, list[str]] = {}
    for each in given(options):
        value = getattr(options, each.name)
        if each.values and value not in each.values:
            raise pytest.UsageError(
                f"pytest-fkit: {each.flag}={value}: expected {' or '.join(each.values)}, without "
                f"effect: {each.instead}"
            )
        flag = f"{each.flag}={value}" if each.values else each.flag
        found.setdefault(each.instead, []).append(flag)
    return [
        f"{' and '.join(flags)} {'has' if len(flags) == 1 else 'have'} no effect: {instead}"
        for instead, flags in found.items()
    ]


def refuse(parser: pytest.Parser, args: Sequence[str]) -> None:
    """Refuse those that nobody declares.

    :param args: the command line, with ``addopts``.
    :raises pytest.UsageError: that names what there is here.
    """
    if not any(str(each).partition("=")[0] in REFUSED for each in args):
        return
    unknown: Any
    _, unknown = parser.parse_known_and_unknown_args(args)
    for each in unknown:
        flag = str(each).partition("=")[0]
        if flag in REFUSED:
            raise pytest.UsageError(
                f"pytest-fkit: {flag} is an option of another project of this name: {REFUSED[flag]}"
            )
