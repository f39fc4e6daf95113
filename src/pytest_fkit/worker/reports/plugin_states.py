"""What plugins and coverage.py kept in test processes, put where they look for it in the end."""

from __future__ import annotations

from typing import Any

import pytest

from ...compat.item_stash import ItemStash
from ...compat.kept_values import add, kept_texts, kept_values
from ...own import own_builtins, pickle
from ...protocol.event_file import Measured, PluginState
from ...sandbox.process.coverage import quietly

own_builtins(globals())


class ReceivedStates:
    """Collects what :class:`pytest_fkit.sandbox.process.states.StateSender` sends."""

    def __init__(self, config: pytest.Config) -> None:
        self._config: Any = config
        self._snapshots: list[dict[str, Any]] = []
        self._stash: ItemStash | None = None

    def keep(self, message: PluginState) -> None:
        """Keep one, until :meth:`conclude`."""
        if message.plugin == "syrupy":
            self._config._syrupy.add_written_snapshot_locations(message.data.pop("written"))
            self._snapshots.append(message.data)
        elif message.plugin == "stash":
            if self._stash is None:
                self._stash = ItemStash(self._config)
            self._stash.write(*message.data)
        elif message.plugin in ("flaky", "retry"):
            kept_texts(self._config)[message.plugin].write(message.data)
        elif message.plugin != "benchmark":
            for kept in kept_values(self._config):
                if kept.name == message.plugin:
                    # Of the plugin's own classes; the frame's checksum holds.
                    data = pickle.loads(message.data) if kept.instances else message.data
                    add(kept, data)
        else:
            # Of classes of pytest-benchmark and built-in ones; the same holds.
            benchmark = pickle.loads(message.data)
            self._config._benchmarksession.benchmarks.append(benchmark)

    def conclude(self) -> None:
        """Hand everything over, when no test is left and before plugins sum up."""
        if not self._snapshots:
            return
        syrupy = self._config._syrupy
        if hasattr(self._config, "workerinput"):
            _publish_with(syrupy, self._snapshots)
            return
        for report in self._snapshots:
            syrupy.add_worker_report(report)
        selected = {nodeid: status.value for nodeid, status in syrupy._selected_items.items()}
        syrupy.add_worker_report(
            {"collections": {}, "num_xfails": 0, "selected": selected, "extensions": {}}
        )


def _publish_with(syrupy: Any, reports: list[dict[str, Any]]) -> None:
    """Have syrupy's report to the controller contain these."""
    publish = syrupy._publish_worker_report

    def publish_all() -> None:
        selected = syrupy._selected_items
        syrupy._worker_reports += reports
        syrupy._merge_worker_reports()
        syrupy.report.selected_items = selected
        publish()

    syrupy._publish_worker_report = publish_all


class Gathered:
    """Lines or arcs by context and file, until they are added to a ``Coverage`` object."""

    def __init__(self) -> None:
        self._arcs = False
        self._contexts: dict[str, dict[str, set[Any]]] = {}
        self._tracers: dict[str, str] = {}

    def add(self, measured: Measured) -> None:
        self._arcs = measured.arcs
        self._tracers.update(measured.tracers)
        for context, files in measured.contexts.items():
            known = self._contexts.setdefault(context, {})
            for path, found in files.items():
                known.setdefault(path, set()).update(found)

    def add_to(self, coverage: Any) -> None:
        """Add all to the data of `coverage`."""
        if not self._contexts:
            return
        with quietly():
            data = coverage.get_data()
        for context, files in self._contexts.items():
            data.set_context(context)
            (data.add_arcs if self._arcs else data.add_lines)(files)
        data.set_context(None)
        data.add_file_tracers(self._tracers)
        self._contexts.clear()
