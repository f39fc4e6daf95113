"""Carries the state of plugins across test processes: of benchmarks, snapshots and reruns.

Checked against pytest-benchmark 5.3, syrupy 7.0 and those of compat/kept_values.py; other plugins
keep such state only without workers, or report it by hooks.
"""

from __future__ import annotations

import sys
from collections import Counter
from types import SimpleNamespace
from typing import Any, Callable, cast

import pytest

from ...compat.item_stash import ItemStash
from ...compat.kept_values import Kept, forget_time_of_wide, kept_texts, kept_values
from ...own import copy, own_builtins, pickle
from ...protocol.event_file import PluginState
from ...protocol.plain_values import carriable
from .relay import Relay

own_builtins(globals())


class StateSender:
    """Sends what plugins have added to their state in this process."""

    def __init__(self, relay: Relay, config: pytest.Config) -> None:
        self._relay = relay
        self._config: Any = config
        self._senders: list[Callable[[], None]] = []
        if hasattr(config, "_benchmarksession"):
            self._senders.append(self._send_benchmarks)
        if hasattr(config, "_syrupy"):
            self._senders.append(self._send_snapshots)
        self._texts = kept_texts(config)
        self._sent = {plugin: stream.tell() for plugin, stream in self._texts.items()}
        if self._texts:
            self._senders.append(self._send_texts)
        self._growing = [_Growth(kept) for kept in kept_values(config)]
        if self._growing:
            self._senders.append(self.send_grown)
        self._no_test_waits = forget_time_of_wide(config)
        self._stash = ItemStash(config)

    def send(self, item: pytest.Item) -> None:
        """Send what was added since the last call; called after each test."""
        stashed = self._stash.keys and self._stash.read(item)
        if stashed:
            self._relay.send(PluginState("stash", carriable((item.nodeid, stashed))))
        for send in self._senders:
            send()

    def send_of_wide(self) -> None:
        """Called after wide fixtures were set up or torn down outside of the hooks of a test."""
        self.send_grown()
        self._no_test_waits()

    def send_grown(self) -> None:
        """Called after wide fixtures were set up for a test within its hooks."""
        for growth in self._growing:
            added = growth.take()
            if added:
                kept = growth.kept
                data = pickle.dumps(added) if kept.instances else carriable(added)
                self._relay.send(PluginState(kept.name, data))

    def forget(self) -> None:
        """What was added since is said by another process."""
        for growth in self._growing:
            growth.take()

    def _send_texts(self) -> None:
        for plugin, stream in self._texts.items():
            text = stream.getvalue()[self._sent[plugin] :]
            if text:
                self._relay.send(PluginState(plugin, carriable(text)))
                self._sent[plugin] += len(text)

    def _send_benchmarks(self) -> None:
        benchmarks = self._config._benchmarksession.benchmarks
        for benchmark in benchmarks:
            data = pickle.dumps(_without_users_objects(benchmark))
            self._relay.send(PluginState("benchmark", data))
        del benchmarks[:]

    def _send_snapshots(self) -> None:
        syrupy = self._config._syrupy
        if not syrupy._assertions:
            return
        syrupy.flush_snapshot_write_queue()
        if hasattr(syrupy, "add_worker_report"):  # before 7.0 syrupy ignores those of workers
            self._relay.send(PluginState("syrupy", carriable(_worker_report(syrupy))))
        del syrupy._assertions[:]


class _Growth:
    """What is new in a container of a plugin."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self._before = copy.copy(kept.values)

    def take(self) -> Any:
        """What is new since the last time."""
        values, before = self.kept.values, self._before
        new: Any
        if isinstance(values, (Counter, set)):
            new = values - cast("Any", before)
        elif isinstance(values, dict) and isinstance(before, dict):
            new = {key: each for key, each in values.items() if before.get(key, self) is not each}
        else:
            new = cast("Any", values)[len(before) :]
        if new and self.kept.collects:
            values.clear()
        elif new:
            self._before = copy.copy(values)
        return new


def _without_users_objects(benchmark: Any) -> Any:
    """A copy that holds only classes of pytest-benchmark and built-in values."""
    name_of = cast("Any", sys.modules["pytest_benchmark.utils"]).funcname
    plain = copy.copy(benchmark)
    plain.fixture = SimpleNamespace(has_error=benchmark.has_error)
    plain.options = {
        name: name_of(value) if callable(value) else value
        for name, value in benchmark.options.items()
    }
    if benchmark.cprofile_stats is not None:
        plain.cprofile_stats = copy.copy(benchmark.cprofile_stats)
        plain.cprofile_stats.stream = None
    for name in ("param", "params", "extra_info"):
        setattr(plain, name, carriable(getattr(benchmark, name)))
    return plain


def _worker_report(syrupy: Any) -> dict[str, Any]:
    """The report of an xdist worker to the controller, without what the worker itself collected."""
    module = cast("Any", sys.modules["syrupy.session"])
    config = syrupy.pytest_session.config
    report = module.SnapshotReport(
        base_dir=config.rootpath,
        collected_items=set(),
        selected_items={},
        assertions=syrupy._assertions,
        options=config.option,
    )
    return {
        "collections": {
            name: getattr(report, name).serialize() for name in module._MERGED_COLLECTIONS
        },
        "num_xfails": report._num_xfails,
        "selected": {},
        "written": list(syrupy._written_snapshot_locations),
        "extensions": {
            location: f"{type(extension).__module__}.{type(extension).__qualname__}"
            for location, extension in syrupy._extensions.items()
        },
    }


class Counts:
    """Replaces pytest-rerunfailures' ``config.failures_db``.

    The plugin reads from it how often a test has failed, and starts its loop of reruns there.
    """

    def __init__(self, db: Any) -> None:
        self._db = db
        self._attempts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def begin(self, attempts: int, suite_reruns: int) -> None:
        """Set the counts before a test; see :class:`pytest_fkit.protocol.messages.Run`."""
        self._attempts = attempts
        # At -n0 this process inherited a copy of the count.
        while suite_reruns and self._db.get_suite_reruns() < suite_reruns:
            self._db.increment_suite_reruns()

    def get_test_failures(self, crashitem: str) -> int:
        """How often the test died: with a process of its own, and before that with a worker."""
        return self._attempts + int(self._db.get_test_failures(crashitem))


def count_reruns(config: pytest.Config) -> Counts | None:
    """Install :class:`Counts`; None if pytest-rerunfailures is not active."""
    db = getattr(config, "failures_db", None)
    if db is None:
        return None
    counts = Counts(db)
    config.failures_db = counts  # type: ignore[attr-defined]
    return counts
