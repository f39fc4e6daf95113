"""The user's own patterns of GPU errors."""

from __future__ import annotations

import re
from typing import Iterable

import pytest

from ...config.settings import read
from ...named_tuple import NamedTuple
from ...own import own_builtins
from ...protocol.event_file import NETWORK
from .error_table import CATEGORIES, OTHER

own_builtins(globals())

NAMES = (*(each.name for each in CATEGORIES if each.is_gpu or each.of_machine), NETWORK)
"""What users may call a category."""


class Pattern(NamedTuple):
    """A user's own.

    :param category: name of one of CATEGORIES.
    """

    category: str
    regex: re.Pattern[str]


def user_patterns(config: pytest.Config) -> tuple[Pattern, ...]:
    """What the ini value ``fkit_gpu_errors`` says.

    :raises pytest.UsageError: naming the line and what is expected.
    """
    lines = read(config, "fkit_gpu_errors")
    try:
        return parse_patterns(lines)
    except ValueError as error:
        raise pytest.UsageError(
            f"pytest-fkit: ini value fkit_gpu_errors: {error}; expected a regular expression, or "
            f"CATEGORY: and one, with a category of {', '.join(NAMES)}"
        ) from None


def parse_patterns(lines: Iterable[str]) -> tuple[Pattern, ...]:
    """Patterns from lines as ``regex`` or ``category: regex``.

    :raises ValueError: saying which line is wrong, and what is expected.
    """
    return tuple(_parsed(line.strip()) for line in lines if line.strip())


def _parsed(line: str) -> Pattern:
    name, colon, rest = line.partition(":")
    named = bool(colon) and name.strip() in NAMES
    text = rest.strip() if named else line
    try:
        regex = re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"{line!r}: no regular expression, {error}") from None
    if regex.search(""):
        raise ValueError(f"{line!r}: matches everything, also an empty message")
    return Pattern(name.strip() if named else OTHER, regex)
