"""Tests of a quarantine that are not to run."""

from __future__ import annotations

from typing import Sequence

import pytest

from ...journal.history import ungrouped
from ...journal.quarantine import QUARANTINE_TOLD, SKIP, KnownFailure, Quarantine
from ...own import own_builtins

own_builtins(globals())


def skip(items: Sequence[pytest.Item], entries: Sequence[KnownFailure]) -> None:
    """Have pytest skip the tests that are not to run."""
    if not any(entry.mode == SKIP for entry in entries):
        return
    quarantine = Quarantine(entries, (_nodeid(item) for item in items))
    for item in items:
        for entry in quarantine.about(_nodeid(item)):
            if entry.mode == SKIP:
                item.add_marker(pytest.mark.skip(reason=entry.reason))
                break


def _nodeid(item: pytest.Item) -> str:
    # As xdist calls it in workers.
    grouped = getattr(item.config.option, "loadgroup", False)
    return ungrouped(item.nodeid, {"options": {"dist": "loadgroup" if grouped else "no"}})


class Skipping:
    """Plugin of the processes that collect for a controller."""

    def __init__(self, config: pytest.Config) -> None:
        told = config.workerinput[QUARANTINE_TOLD]  # type: ignore[attr-defined]
        self._entries = [KnownFailure(*each) for each in told]
        # The controller counts: it alone knows which failures don't count.
        config.option.maxfail = 0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        skip(items, self._entries)
