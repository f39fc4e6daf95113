"""What plugins kept in test processes, put where they look for it at the end of the session."""

from __future__ import annotations

from typing import Any

import pytest

from ...compat.kept_values import add, kept_values
from ...own import own_builtins, pickle
from ...protocol.messages import PluginState

own_builtins(globals())


class States:
    """Takes what :class:`pytest_fkit.sandbox.process.states.States` sends."""

    def __init__(self, config: pytest.Config) -> None:
        self._config: Any = config
        self._snapshots: list[dict[str, Any]] = []

    def take(self, message: PluginState) -> None:
        """Take one in."""
        if message.plugin == "syrupy":
            self._config._syrupy.add_written_snapshot_locations(message.data.pop("written"))
            self._snapshots.append(message.data)
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
        """When no test is left, before plugins come to their conclusions."""
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
    """Have the worker's own report to the controller contain these."""
    publish = syrupy._publish_worker_report

    def publish_all() -> None:
        selected = syrupy._selected_items
        syrupy._worker_reports += reports
        syrupy._merge_worker_reports()
        syrupy.report.selected_items = selected
        publish()

    syrupy._publish_worker_report = publish_all
