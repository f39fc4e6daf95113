"""What collection leaves in the worker and a forked copy of it could not use."""

from __future__ import annotations

from typing import Generator

import pytest

from ..sandbox.copies import fork
from ..system import holdings


class CollectionWatch:
    """Plugin of a worker: remembers which module or conftest left threads, sockets and the like."""

    def __init__(self) -> None:
        self._causes: dict[str, str] = {}
        self._held: holdings.Holdings | None = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Compare before and after what may import a file."""
        if not isinstance(collector, (pytest.File, pytest.Package)):
            return (yield)
        if self._held is None:
            self._held = holdings.take()
        try:
            return (yield)
        finally:
            self._look(collector, self._held)

    def _look(self, collector: pytest.Collector, held: holdings.Holdings) -> None:
        now = holdings.take_forkable(fork, held)
        found = now.beyond(held)
        if found:
            self._causes[collector.nodeid] = f"import of {collector.nodeid}: {', '.join(found)}"
        self._held = now

    def cause(self, item: pytest.Item) -> str:
        """What keeps `item` from being forked, or ""."""
        if not self._causes:
            return ""
        if self._held is not None and self._held.gpu:
            # A GPU runtime is one for the whole process, whoever opened it.
            return next(iter(self._causes.values()))
        for node in item.listchain():
            if node.nodeid in self._causes:
                return self._causes[node.nodeid]
        return ""
