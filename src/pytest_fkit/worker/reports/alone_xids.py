"""Reports at ``-n0`` on tests that have GPUs: no other worker could try them, Xids are named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Sequence

import pytest

from ...own import own_builtins
from ..gpus.xids_of_tests import TestXids
from .reports import Account, LocalReports

if TYPE_CHECKING:
    from ...journal.recorder import Recorder

own_builtins(globals())


class ReportsWithXids(LocalReports):
    """See :class:`.reports.LocalReports`.

    :param xids: knows them.
    """

    def __init__(
        self,
        recorder: Recorder | None,
        account: Account | None,
        items: Sequence[pytest.Item],
        xids: TestXids,
    ) -> None:
        super().__init__(recorder, account, items)
        self._xids = xids

    def are_awaited(self, config: pytest.Config) -> bool:
        """Or the Xids of the next test would be taken for those of one that is told late."""
        del config
        return True

    def begins(self, item: pytest.Item) -> None:
        """See there."""
        self._xids.begins(item)
        super().begins(item)

    def gpu_error(self, item: pytest.Item, error: dict[str, Any]) -> None:
        """Wait for the Xid, before its report."""
        if error["doubtful"]:
            self._xids.look(item, awaits=True)

    def unexplained(self, item: pytest.Item, how: str) -> None:
        """Wait for the Xid, before its report."""
        del how
        self._xids.look(item, awaits=True)

    def log_report(self, item: pytest.Item, data: dict[str, Any]) -> None:
        """Name them."""
        self._xids.sees(item, data.get("fkit_gpus", ()))
        self._xids.look(item, awaits=False)
        self._xids.add_section(item, data)
        super().log_report(item, data)

    def attempt(
        self, item: pytest.Item, facts: dict[str, Any], left: int, again: bool = False
    ) -> None:
        """Name them."""
        super().attempt(item, self._xids.with_facts(item, facts), left, again)

    def complete(self, item: pytest.Item, seconds: float) -> None:
        """See there."""
        super().complete(item, seconds)
        self._xids.over(item)
