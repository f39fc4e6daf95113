"""What a report that no worker made lacks: what plugins add to every report in workers."""

from __future__ import annotations

from typing import Any

from ...own import own_builtins

own_builtins(globals())

_OF_XDIST = ("worker_id", "testrun_uid", "item_index")
"""Say which worker made a report."""

_EMPTY = (str, bytes, bool, int, float, list, tuple, dict, set, frozenset)


class Usual:
    """The attributes that all reports of a run have, and which of their values says nothing."""

    def __init__(self) -> None:
        self._common: dict[str, Any] | None = None

    def take(self, report: Any) -> None:
        """A worker made this report."""
        found = vars(report)
        if self._common is None:
            self._common = {
                name: type(value)
                for name, value in found.items()
                if name not in _OF_XDIST and not name.startswith("fkit_")
            }
            return
        if self._common.keys() <= found.keys():
            return
        self._common = {name: kind for name, kind in self._common.items() if name in found}

    def complete(self, report: Any) -> None:
        """Add to a report of ours what it lacks, empty: its listeners may rely on it."""
        for name, kind in (self._common or {}).items():
            if name not in vars(report):
                setattr(report, name, kind() if kind in _EMPTY else None)
