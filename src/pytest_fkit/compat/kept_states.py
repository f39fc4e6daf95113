"""What plugins collect as tests run: flaky 3.8, pytest-retry 1.7, pytest-mpl 0.19."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from ..own import own_builtins

own_builtins(globals())

_OF_MPL = ("_test_results", "_generated_hash_library")


def kept_texts(config: pytest.Config) -> dict[str, Any]:
    """The streams of those that are there, by the plugin; each an io.StringIO."""
    found: dict[str, Any] = {}
    flaky: Any = _plugin(config, "flaky.flaky_pytest_plugin")
    if hasattr(flaky, "PLUGIN"):
        found["flaky"] = flaky.PLUGIN.stream
    retry: Any = _plugin(config, "pytest_retry.retry_plugin")
    reporter: Any = getattr(getattr(retry, "retry_manager", None), "reporter", None)
    if type(reporter).__name__ == "OfflineReporter":  # the one of workers has a connection
        found["retry"] = reporter.stream
    return found


def kept_results(config: pytest.Config) -> dict[str, dict[str, Any]]:
    """Those of pytest-mpl, by the name of the attribute, empty if it is not there."""
    comparison: Any = getattr(_plugin(config, "pytest_mpl.plugin"), "ImageComparison", None)
    for plugin in config.pluginmanager.get_plugins() if comparison else ():
        if type(plugin) is comparison:
            return {name: vars(plugin).get(name, {}) for name in _OF_MPL}
    return {}


def tells_elsewhere(plugin: object) -> bool:
    """Whether its results are sent to where it tells of them at the end."""
    return type(plugin).__name__ == "ImageComparison" and _OF_MPL[0] in vars(plugin)


def _plugin(config: pytest.Config, name: str) -> Any:
    module = sys.modules.get(name)
    return module if config.pluginmanager.is_registered(module) else None
