"""How long tests took, from one run to the next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Mapping, Sequence

import pytest

from ...own import own_builtins

own_builtins(globals())

_KEY = "fkit/durations"

_WORTH = 0.05
"""Seconds from which on a duration is remembered; what takes less is all the same."""


class Durations:
    """What is expected of tests, and what this run found.

    It is kept in pytest's cache. pytest-split's file counts where that knows nothing.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._cache: Any = getattr(config, "cache", None)
        kept = self._cache.get(_KEY, None) if self._cache is not None else None
        self._known = _seconds(kept)
        self._split = _of_pytest_split(config)
        self._any = isinstance(kept, dict)
        self._found: dict[str, float] = {}

    def expected(self, nodeids: Sequence[str]) -> list[float | None]:
        """Seconds for each test, None where nobody knows."""
        if not self._any and not self._split:
            return [None] * len(nodeids)
        known, split = self._known, self._split
        return [known.get(nodeid, split.get(nodeid)) for nodeid in nodeids]

    def found(self, nodeid: str, seconds: float) -> None:
        """A test took so long."""
        self._found[nodeid] = seconds

    def forget(self, nodeid: str) -> None:
        """What was found says nothing: the test died, or was tried again."""
        self._found.pop(nodeid, None)

    def keep(self) -> None:
        """Write down what was found."""
        if self._cache is None or not self._found:
            return
        merged = {**self._known, **self._found}
        worth = {nodeid: round(took, 3) for nodeid, took in merged.items() if took >= _WORTH}
        self._cache.set(_KEY, worth)


def _of_pytest_split(config: pytest.Config) -> Mapping[str, float]:
    """The file that pytest-split's ``--store-durations`` writes: node ids and seconds, in JSON."""
    path = config.getoption("durations_path", None) or config.rootpath / ".test_durations"
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return _seconds(found)


def _seconds(found: object) -> dict[str, float]:
    """What of a file's content are durations: anybody may have written it."""
    if not isinstance(found, dict):
        return {}
    return {
        name: took
        for name, took in found.items()
        if isinstance(took, (int, float)) and 0 <= took < float("inf")
    }
