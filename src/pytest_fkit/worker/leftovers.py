"""What collection leaves in the worker and a forked copy of it could not use."""

from __future__ import annotations

from typing import Callable, Generator, Iterator, NamedTuple

import pytest

from ..nodes import lineage
from ..own import contextmanager, own_builtins
from ..sandbox.copies import fork
from ..settings import Settings
from ..system import holdings

own_builtins(globals())


class _OfConftests(NamedTuple):
    """What the initial conftest files left.

    :param cause: in words, or "".
    """

    cause: str
    held: holdings.Holdings


_KEY: pytest.StashKey[_OfConftests] = pytest.StashKey()


@contextmanager
def watched_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Within the block the initial conftest files are loaded: look at what they leave."""
    before = holdings.take()
    yield
    now = holdings.take_forkable(fork, before)
    found = now.beyond(before)
    cause = f"import of conftest.py: {', '.join(found)}" if found else ""
    early_config.stash[_KEY] = _OfConftests(cause, now)


class CollectionWatch:
    """Plugin of a process that collects: remembers which file left threads, sockets and the like.

    What plugins left before collection is theirs, other than a GPU runtime.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._causes: dict[str, str] = {}
        self._of_all, before = config.stash.get(_KEY, ("", None))
        self._gpu_before = before.gpu if before is not None else ""
        self._held: holdings.Holdings | None = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Compare before and after what may import a file."""
        if isinstance(collector, pytest.Class):  # its file is imported
            return (yield)
        if self._held is None:
            self._begin()
        try:
            return (yield)
        finally:
            self._look(collector)

    def _begin(self) -> None:
        self._held = holdings.take()
        if self._held.gpu and not self._gpu_before:
            self._of_all = f"a plugin or a hook, before collection: {self._held.gpu}"

    def _look(self, collector: pytest.Collector) -> None:
        # What is collected within this collector was looked at already.
        assert self._held is not None
        now = holdings.take_forkable(fork, self._held)
        found = now.beyond(self._held)
        if found:
            cause = f"import of {collector.nodeid or 'a conftest.py'}: {', '.join(found)}"
            self._causes[collector.nodeid] = cause
            if now.gpu and not self._held.gpu:
                # A GPU runtime is one for the whole process, whoever opened it.
                self._of_all = self._of_all or cause
        self._held = now

    def cause(self, item: pytest.Item) -> str:
        """What keeps `item` from being forked, or ""."""
        if self._of_all or not self._causes:
            return self._of_all
        for node in lineage(item):
            if node.nodeid in self._causes:
                return self._causes[node.nodeid]
        return ""


def unforkable(config: pytest.Config, settings: Settings) -> Callable[[pytest.Item], str]:
    """What says why a test can't be forked, or ""."""
    if settings.start_method == "spawn":
        return lambda _: "--fkit-start-method=spawn"
    if settings.start_method == "fork":
        return lambda _: ""
    watch = CollectionWatch(config)
    config.pluginmanager.register(watch, "fkit-watch")
    return watch.cause
