"""Options of the pytest-fkit on PyPI (0.2.0 to 0.11.0) that are none here: users are told of ours.

Those that mean the same are in the table of options.
"""

from __future__ import annotations

import argparse
from typing import Any, Sequence

import pytest

ACCEPTED = {"--fkit-mode": ("batch", "isolate"), "--fkit-batch": ()}
"""Options that do nothing, with the values that they take; none of a switch."""

INSTEAD = "each test has a process of its own, and --fkit-isolation=module has tests share one"

REFUSED = ("--trace-metrics", "--trace-output", "--trace-json", "--trace-pysr")
"""Options of 0.2 and 0.3, which would have written a file."""


def declare(group: pytest.OptionGroup) -> None:
    """Declare the accepted ones, without a word in ``--help``."""
    for flag, values in ACCEPTED.items():
        if values:
            group.addoption(flag, help=argparse.SUPPRESS)
        else:
            group.addoption(flag, action="store_true", default=None, help=argparse.SUPPRESS)


def given(options: argparse.Namespace) -> dict[str, Any]:
    """The accepted ones that the user gives, with their values."""
    found = {flag: getattr(options, flag[2:].replace("-", "_"), None) for flag in ACCEPTED}
    return {flag: value for flag, value in found.items() if value is not None}


def notice(options: argparse.Namespace) -> str:
    """What the user has to know about them, "" if none is given.

    :raises pytest.UsageError: for a value that there is not.
    """
    said = []
    for flag, value in given(options).items():
        values = ACCEPTED[flag]
        if values and value not in values:
            raise pytest.UsageError(
                f"pytest-fkit: {flag}={value}: expected {' or '.join(values)}, without effect: "
                f"{INSTEAD}"
            )
        said.append(f"{flag}={value}" if values else flag)
    has = "has" if len(said) == 1 else "have"
    return f"{' and '.join(said)} {has} no effect: {INSTEAD}" if said else ""


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
                f"pytest-fkit: {flag} is an option of another project with this name; here "
                "--fkit-trace=PATH writes a timeline, and --fkit-journal=PATH a record of which "
                "`fkit csv` makes a table"
            )
