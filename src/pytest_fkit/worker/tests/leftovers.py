"""What collection leaves in the worker that does not survive a fork."""

from __future__ import annotations

from typing import Callable, Generator, Iterator

import pytest

from ...compat.pytest_nodes import lineage, unique_id
from ...config.settings import Settings
from ...named_tuple import NamedTuple
from ...own import contextmanager, own_builtins
from ...sandbox.process.copies import fork
from ...system import holdings

own_builtins(globals())


class _Early(NamedTuple):
    """What plugins and the initial conftest files left.

    :param cause: what keeps tests from being forked, in words, or "".
    """

    cause: str
    held: holdings.Holdings


_KEY: pytest.StashKey[_Early] = pytest.StashKey()


@contextmanager
def watched_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Within the block, while the initial conftest files are loaded: note what they leave."""
    clean = holdings.without_plugins()
    before = holdings.take_forkable(fork, clean)
    cause = _in_words("a plugin, or the program that runs pytest", before.beyond(clean))
    given = early_config.invocation_params.plugins or ()
    if cause and not before.runtime and any(not isinstance(each, str) for each in given):
        # No fresh interpreter could have these objects. The threads rather belong to the program
        # that called pytest, an IDE or a notebook.
        cause = ""
    yield
    now = holdings.take_forkable(fork, before)
    cause = cause or _in_words("import of conftest.py", now.beyond(before))
    early_config.stash[_KEY] = _Early(cause, now)


def _in_words(source: str, found: list[str]) -> str:
    return f"{source}: {', '.join(found)}" if found else ""


class CollectionWatch:
    """Plugin of a process that collects: notes which file left threads, sockets and the like.

    Ignores what plugins left in hooks before collection, other than a GPU runtime.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._causes: dict[str, str] = {}
        self._of_all, before = config.stash.get(_KEY, ("", None))
        self._runtime_before = before.runtime if before is not None else ""
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
        if self._held.runtime and not self._runtime_before:
            self._of_all = f"a plugin or a hook, before collection: {self._held.runtime}"

    def _look(self, collector: pytest.Collector) -> None:
        # Nested collectors have been looked at already.
        assert self._held is not None
        now = holdings.take_forkable(fork, self._held)
        found = now.beyond(self._held)
        if found:
            name = unique_id(collector)
            cause = f"import of {name or 'a conftest.py'}: {', '.join(found)}"
            self._causes[name] = cause
            if now.runtime and not self._held.runtime:
                # A runtime is the whole process's, whichever file opened it.
                self._of_all = self._of_all or cause
        self._held = now

    def cause(self, item: pytest.Item) -> str:
        """What keeps `item` from being forked, or ""."""
        if self._of_all or not self._causes:
            return self._of_all
        for node in lineage(item):
            name = unique_id(node)
            if name in self._causes:
                return self._causes[name]
        return ""


def unforkable(config: pytest.Config, settings: Settings) -> Callable[[pytest.Item], str]:
    """The function that says why a test can't be forked, or ""."""
    if settings.start_method == "spawn":
        return lambda _: "--fkit-start-method=spawn"
    if settings.start_method == "fork":
        return lambda _: ""
    watch = CollectionWatch(config)
    config.pluginmanager.register(watch, "fkit-watch")
    return watch.cause
