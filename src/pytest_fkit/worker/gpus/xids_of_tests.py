"""The Xids that fell into the time of a worker's tests, on the GPUs that these had."""

from __future__ import annotations

from collections import deque
from typing import Any, Sequence

import pytest

from ... import system
from ...gpu.errors.failure import GpuError
from ...gpu.health.xids import PROGRAM, Xid, XidFile, decided, described, falling_into
from ...gpu.slices.ownership import TITLE
from ...own import os, own_builtins, time
from ...protocol.plain_values import carriable

own_builtins(globals())

_WAIT = 0.5
"""Seconds for the Xid of a failure whose message can't say whose it is: the driver writes it down
at the same time."""

_IN_VAIN = 2
"""Waits in a row after which there are no more, until an Xid is seen: there may be none here."""

_STEP, _MORE = 0.005, 0.02
"""Seconds between two looks, and for those that come with the first one."""

_MOST = 1000
"""Xids that are kept."""


class TestXids:
    """Knows them.

    :param path: of the file of the readers.
    :param ids: the worker's GPUs.
    :param shared: whether another worker has them, too.
    """

    __test__ = False

    def __init__(self, path: str, ids: Sequence[str], shared: bool = False) -> None:
        self._file = XidFile(path)
        self._ids = tuple(ids)
        self._shared = shared
        # Where orphans are not adopted, what a test started may be below somebody else.
        self._pid = 0 if system.PORTABLE else os.getpid()
        self._known: deque[Xid] = deque(maxlen=_MOST)
        self._in_vain = 0
        self._last: pytest.Item | None = None
        self._began: dict[pytest.Item, float] = {}
        self._gpus: dict[pytest.Item, Sequence[str]] = {}
        self._found: dict[pytest.Item, tuple[Xid, ...]] = {}
        self._of_events: dict[str, tuple[Xid, ...]] = {}

    def begins(self, item: pytest.Item) -> None:
        """From now on Xids are of the time of the test."""
        self._last = item
        self._began[item] = time.monotonic()
        self._found.pop(item, None)

    def starts(self, item: pytest.Item) -> None:
        """It begins anew if all was said of it."""
        if item in self._found:
            self.begins(item)

    def sees(self, item: pytest.Item, gpus: Sequence[str]) -> None:
        """The test has these GPUs, if any are named, and not its worker's."""
        if gpus:
            self._gpus[item] = gpus

    def are_known(self, item: pytest.Item) -> bool:
        """Whether its time is over."""
        return item in self._found

    def judge(self, item: pytest.Item, error: GpuError | None, unexplained: str) -> GpuError | None:
        """End the time of the test; what it met, now that these are known.

        Waits for them where it matters.

        :param error: what the message of its failure makes it.
        :param unexplained: see :func:`.gpu.xids.decided`.
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
        """Not what a program did, where it may have been the test of another worker."""
        return not self._shared or xid.fault != PROGRAM or self._pid in xid.above

    def look(self, item: pytest.Item, awaits: bool) -> None:
        """What there is by now is of the test; its time goes on."""
        found = self._awaited(item) if awaits else self._seen(item)
        if found:
            self._found[item] = found

    def over(self, item: pytest.Item) -> None:
        """All was told of the test."""
        for known in (self._began, self._gpus, self._found):
            known.pop(item, None)

    def add_section(self, item: pytest.Item, data: dict[str, Any]) -> None:
        """Name them in a report on the test, if it is on its call or on a failure."""
        found = self._found.get(item, ())
        if found and (data["outcome"] == "failed" or data.get("when") == "call"):
            data["sections"] = [*data["sections"], (TITLE, carriable(described(found)))]

    def with_facts(self, item: pytest.Item, facts: dict[str, Any]) -> dict[str, Any]:
        """What a journal says of the test, with them."""
        found = self._found.get(item, ())
        return {**facts, "xids": carriable([_fact(each) for each in found])} if found else facts

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


def _fact(xid: Xid) -> dict[str, Any]:
    return {**xid.facts(), "wall": xid.wall}
