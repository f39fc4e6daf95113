"""The Xids that occurred while a worker's tests ran, on the GPUs of these."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Callable, Sequence

import pytest

from ... import system
from ...gpu.health.xids import PROGRAM, Xid, XidFile, decided, described, falling_into
from ...gpu.slices.ownership import TITLE, Owned
from ...own import os, own_builtins, time
from ...protocol.border import ItemAttempt
from ...protocol.event_file import GpuError, ReportData, facts_in
from ...protocol.plain_values import carriable
from .reports import Account, LocalReports, add_section

if TYPE_CHECKING:
    from ...journal.recorder import Recorder

own_builtins(globals())

_WAIT = 0.5
"""Seconds to wait for the Xid of a failure whose message does not tell whose fault it is; the
driver writes it down at the time of the failure."""

_IN_VAIN = 2
"""Fruitless waits in a row after which to wait no more until an Xid is seen: there may be none."""

_STEP, _MORE = 0.005, 0.02
"""Seconds between two looks, and to wait for more Xids after the first one."""

_MOST = 1000
"""Xids that are kept."""


class TestXids:
    """Finds the Xids of each test.

    :param shared: whether another worker has them, too.
    """

    __test__ = False

    def __init__(self, path: str, ids: Sequence[str], shared: bool = False) -> None:
        self._file = XidFile(path)
        self._ids = tuple(ids)
        self._shared = shared
        # Where we don't adopt orphans, processes of a test may be below another process.
        self._pid = 0 if system.PORTABLE else os.getpid()
        self._known: deque[Xid] = deque(maxlen=_MOST)
        self._in_vain = 0
        self._last: pytest.Item | None = None
        self._began: dict[pytest.Item, float] = {}
        self._gpus: dict[pytest.Item, Sequence[str]] = {}
        self._found: dict[pytest.Item, tuple[Xid, ...]] = {}
        self._of_events: dict[str, tuple[Xid, ...]] = {}

    def begins(self, item: pytest.Item) -> None:
        """The test is about to begin: Xids from now on are its."""
        self._last = item
        self._began[item] = time.monotonic()
        self._found.pop(item, None)

    def starts(self, item: pytest.Item) -> None:
        """Another attempt begins, if the last one was judged."""
        if item in self._found:
            self.begins(item)

    def sees(self, item: pytest.Item, gpus: Sequence[str] | None) -> None:
        """The test sees these GPUs, not its worker's, if any are named."""
        if gpus:
            self._gpus[item] = gpus

    def are_known(self, item: pytest.Item) -> bool:
        """Whether the Xids of the test are known: it has ended."""
        return item in self._found

    def judge(self, item: pytest.Item, error: GpuError | None, unexplained: str) -> GpuError | None:
        """End the test's time; return the GPU error that it met, judged by the Xids, if any.

        Waits for Xids where they decide.

        :param error: the GPU error by the message of its failure.
        :param unexplained: see :func:`.xids.decided`.
        """
        matters = bool(unexplained) if error is None else error.doubtful
        event = "" if error is None else error.event
        before = self._of_events.get(event) if event else None
        found = self._awaited(item) if matters and before is None else self._seen(item)
        if event:
            found = self._of_events[event] = tuple(dict.fromkeys((*(before or ()), *found)))
        self._found[item] = found
        return decided(error, unexplained, [each for each in found if self._may_decide(each)])

    def _may_decide(self, xid: Xid) -> bool:
        """Whether an Xid is known not to be the fault of another worker's test on the same GPU."""
        return not self._shared or xid.fault != PROGRAM or self._pid in xid.above

    def look(self, item: pytest.Item, awaits: bool) -> None:
        """Look for Xids of the test, whose time goes on."""
        found = self._awaited(item) if awaits else self._seen(item)
        if found:
            self._found[item] = found

    def over(self, item: pytest.Item) -> None:
        """Forget the test."""
        for known in (self._began, self._gpus, self._found):
            known.pop(item, None)

    def add_section(self, item: pytest.Item, data: ReportData) -> None:
        """Name the Xids in a report on the test's call, or on a failure."""
        found = self._found.get(item, ())
        if found and (data["outcome"] == "failed" or data.get("when") == "call"):
            add_section(data, TITLE, carriable(described(found)))

    def add_to(self, item: pytest.Item, attempt: ItemAttempt) -> ItemAttempt:
        """The attempt, with the Xids."""
        found = self._found.get(item, ())
        if not found:
            return attempt
        facts = ({**each.facts(), "wall": each.wall} for each in found)
        return attempt._replace(xids=carriable(tuple(facts)))

    def _seen(self, item: pytest.Item) -> tuple[Xid, ...]:
        self._known.extend(self._file.read())
        since = self._began.get(item)
        if since is None or not self._known:
            return ()
        found = falling_into(self._known, self._gpus.get(item, self._ids), since, self._pid)
        # Where tests share a process one begins before all is said of the one before it.
        end = None if self._last is None or self._last is item else self._began.get(self._last)
        return found if end is None else tuple(each for each in found if each.mono < end)

    def _awaited(self, item: pytest.Item) -> tuple[Xid, ...]:
        found = self._seen(item)
        if not self._file.is_told:
            return found
        until = time.monotonic() + (_WAIT if self._in_vain < _IN_VAIN else 0.0)
        while not found and time.monotonic() < until:
            time.sleep(_STEP)
            found = self._seen(item)
        if found:
            time.sleep(_MORE)
            found = self._seen(item)
        self._in_vain = 0 if found else self._in_vain + 1
        return found


class ReportsWithXids(LocalReports):
    """At ``-n0`` with GPUs: no other worker could run the tests, so Xids are only named.

    Doubtful failures wait for theirs, which come before the report.
    """

    def __init__(
        self,
        recorder: Recorder | None,
        account: Account | None,
        items: Sequence[pytest.Item],
        owned: Owned,
        xids: TestXids,
        screen: Callable[[pytest.TestReport], None] | None = None,
    ) -> None:
        super().__init__(recorder, account, items, owned, screen)
        self._xids = xids

    def are_awaited(self, config: pytest.Config) -> bool:
        """Yes: else Xids of the next test would go to the one before, whose reports are late."""
        del config
        return True

    def begins(self, item: pytest.Item, position: int) -> None:
        self._xids.begins(item)
        super().begins(item, position)

    def gpu_error(self, item: pytest.Item, error: GpuError) -> None:
        if error.doubtful:
            self._xids.look(item, awaits=True)

    def unexplained(self, item: pytest.Item, how: str) -> None:
        del how
        self._xids.look(item, awaits=True)

    def log_report(self, item: pytest.Item, data: ReportData) -> None:
        self._xids.sees(item, facts_in(data).gpus)
        self._xids.look(item, awaits=False)
        self._xids.add_section(item, data)
        super().log_report(item, data)

    def attempt(self, item: pytest.Item, attempt: ItemAttempt) -> None:
        super().attempt(item, self._xids.add_to(item, attempt))

    def complete(self, item: pytest.Item, seconds: float) -> None:
        super().complete(item, seconds)
        self._xids.over(item)
