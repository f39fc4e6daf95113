"""Reruns of tests that died, as pytest-rerunfailures reruns failures."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any, Iterable

import pytest

from ...named_tuple import NamedTuple
from ...own import own_builtins

own_builtins(globals())


class ProcessDiedError(Exception):
    """Stands for the exception that a dead process can't raise; its text is the headline."""


class _Failure(NamedTuple):
    """As much of pytest.ExceptionInfo as the plugin's conditions ask for."""

    value: ProcessDiedError


class Reruns:
    """Reads the options and marks of pytest-rerunfailures, where that is active.

    The plugin itself loops inside the process that died. This uses its functions without an
    underscore and its ``config.failures_db``, checked against versions 11.1 to 16.7.
    """

    def __init__(self, config: pytest.Config) -> None:
        plugin: Any = sys.modules.get("pytest_rerunfailures")
        active = plugin is not None and config.pluginmanager.is_registered(plugin)
        self._plugin = plugin if active else None
        self._db: Any = getattr(config, "failures_db", None) if active else None
        # Workers share the controller's count; without workers each test process has a copy.
        self._counts = hasattr(self._db, "get_suite_reruns") and not hasattr(config, "workerinput")

    @property
    def active(self) -> bool:
        """Whether tests may have to be run again."""
        return self._plugin is not None

    @property
    def in_suite(self) -> int:
        """How many reruns there were, for ``--max-suite-reruns``; 0 where others count."""
        return int(self._db.get_suite_reruns()) if self._counts else 0

    def note(self, item: pytest.Item, before: int, attempts: int) -> None:
        """Count attempts `before` + 1 to `attempts`, which one test process made."""
        if self._db is None or attempts < 2:
            return
        item.execution_count = attempts  # type: ignore[attr-defined]  # for --fail-on-flaky
        if self._counts:
            for _ in range(before + 1, attempts):
                self._db.increment_suite_reruns()

    def delay(self, item: pytest.Item, attempts: int, headline: str) -> float | None:
        """Seconds to wait before the attempt after this many; None if there is to be none."""
        if self._plugin is None or _excluded(item):
            return None
        reruns = self._plugin.get_reruns_count(item)
        if reruns is None or attempts > reruns:
            return None
        died = ProcessDiedError(headline)
        if not _passes_filters(item, died) or not self._condition(item, attempts, died):
            return None
        most = item.config.getoption("max_suite_reruns", None)
        if most is not None and not self._db.try_increment_suite_reruns(most):
            return None
        factor = getattr(self._plugin, "get_reruns_delay_backoff_factor", lambda _: 1.0)(item)
        return float(self._plugin.get_reruns_delay(item) * factor ** (attempts - 1))

    def _condition(self, item: pytest.Item, attempts: int, died: ProcessDiedError) -> bool:
        assert self._plugin is not None
        condition = self._plugin.get_reruns_condition
        if len(inspect.signature(condition).parameters) == 1:  # before 16.5
            return bool(condition(item))
        return bool(condition(item, [("death", attempts, _Failure(died))]))


def forget_subtests(item: pytest.Item) -> None:
    """Take failures of subtests back, since the test runs again.

    pytest-rerunfailures does this since 16.4: in its loop, which here runs in the test's process,
    and with workers where their reports arrive. It has no name without an underscore for it.
    """
    plugin = sys.modules.get("pytest_rerunfailures")
    forget = getattr(plugin, "_remove_failed_subtest_reports_from_stats", None)
    if forget is not None:
        forget(item.config, item.session, item.nodeid)


def _excluded(item: pytest.Item) -> bool:
    excluded = item.config.getoption("rerun_exclude_path", None) or ()
    own = (item.path, *item.path.parents)
    return any(item.config.rootpath / path in own for path in excluded)


def _passes_filters(item: pytest.Item, died: ProcessDiedError) -> bool:
    only, others = _filter(item, "only_rerun"), _filter(item, "rerun_except")
    return (not only or _matches(only, died)) and not _matches(others, died)


def _filter(item: pytest.Item, name: str) -> Iterable[Any]:
    mark = item.get_closest_marker("flaky")
    if mark is not None and name in mark.kwargs:
        found: Any = mark.kwargs[name]
        return [found] if isinstance(found, (str, type)) else found
    found = item.config.getoption(name, None)
    if found is not None:
        return list(found)
    try:
        return list(item.config.getini(name) or ())
    except ValueError:  # older versions have no ini value
        return ()


def _matches(wanted: Iterable[Any], died: ProcessDiedError) -> bool:
    text = f"{type(died).__name__}: {died}"
    return any(
        isinstance(died, each) if isinstance(each, type) else re.search(each, text)
        for each in wanted
    )
