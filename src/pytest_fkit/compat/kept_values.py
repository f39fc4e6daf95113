"""Where plugins keep what they saw of tests until the end of the session.

Private names, checked against flaky 3.8, pytest-accept 0.3, pytest-black 0.6, pytest-codspeed 5.0,
pytest-durations 1.10, pytest-flake8 1.3, pytest-html-reporter 0.4, pytest-insta 0.4, pytest-isort
4.0, pytest-json 0.4, pytest-line-profiler 0.2, pytest-mpl 0.19, pytest-profiling 1.8, pytest-retry
1.7 and pytest-tagging 1.6.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Iterator, cast

import pytest

from ..named_tuple import NamedTuple
from ..own import own_builtins
from .pytest_hooks import is_loaded, module_of

own_builtins(globals())


class Kept(NamedTuple):
    """A container to which tests add.

    :param name: the same in all processes.
    :param collects: whether its values are lists, to which the plugin adds.
    :param instances: whether its values are of other classes than built-in ones.
    """

    name: str
    values: dict[Any, Any] | list[Any] | set[Any]
    collects: bool = False
    instances: bool = False


def kept_values(config: pytest.Config) -> list[Kept]:
    """The containers of the plugins of this process."""
    return [
        Kept(name, values, name.startswith(_COLLECTING), name.startswith(_OF_OTHER_CLASSES))
        for name, values in _places(config)
        if isinstance(values, (dict, list, set))
    ]


def add(kept: Kept, added: Any) -> None:
    """Put what another process added into the container of this one."""
    values = kept.values
    if isinstance(values, list):
        values.extend(added)
    elif isinstance(values, set):
        values.update(added)
    elif kept.collects:
        for key, more in added.items():
            values.setdefault(key, []).extend(more)
    else:
        values.update(added)  # a Counter counts on


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


def forget_time_of_wide(config: pytest.Config) -> Callable[[], None]:
    """Has pytest-durations not subtract it from the time of a test that it was no part of."""
    plugins: list[Any] = [
        each
        for each in config.pluginmanager.get_plugins()
        if module_of(each).startswith("pytest_durations.")
        and hasattr(each, "shared_fixture_duration")
    ]

    def forget() -> None:
        for plugin in plugins:
            plugin.shared_fixture_duration = 0.0

    return forget


def begin_reports(item: pytest.Item) -> None:
    """Put into the item what pytest-json-report (1.5) put there where the test ran."""
    if "pytest_jsonreport.plugin" in sys.modules and not hasattr(item, "_json_report_extra"):
        kept: dict[str, dict[str, Any]] = {when: {} for when in ("setup", "call", "teardown")}
        cast("Any", item)._json_report_extra = kept


def report_each_test() -> None:
    """Have pytest-testmon (2.2) put what a test ran into its report, not into a later test's."""
    core: Any = sys.modules.get("testmon.testmon_core")
    if hasattr(core, "TEST_BATCH_SIZE"):
        core.TEST_BATCH_SIZE = 1


_COLLECTING = ("pytest_accept", "pytest_durations ")
_OF_OTHER_CLASSES = ("pytest_accept", "pytest_codspeed", "pytest_insta ")
_IN_CONFIG = ("_blackmtimes", "_flake8mtimes", "_isort_mtimes", "_json_environment")
_IN_PLUGINS = {
    "pytest_html_reporter.html_reporter": ("_records",),
    "pytest_mpl.plugin": ("_generated_hash_library", "_test_results"),
    "pytest_profiling": ("profs",),
    "pytest_tagging.plugin": ("counter",),
}
_OF_INSTA = ("recorded", "created", "updated", "deleted")


def _places(config: Any) -> Iterator[tuple[str, Any]]:
    for name in _IN_CONFIG:
        yield name, getattr(config, name, None)
    if is_loaded(config, "line-profiler"):
        # Made by the first test otherwise.
        config._line_profile = getattr(config, "_line_profile", {})
        yield "_line_profile", config._line_profile
    for name in _OF_INSTA:
        snapshots = getattr(config, "_snapshot_session", None)
        yield f"pytest_insta {name}", getattr(snapshots, name, None)
    key = getattr(sys.modules.get("pytest_accept"), "file_changes_key", None)
    session = config.pluginmanager.get_plugin("session")
    if key is not None and session is not None:
        yield "pytest_accept", session.stash.setdefault(key, {})
    for plugin in config.pluginmanager.get_plugins():
        module = module_of(plugin)
        for name in _IN_PLUGINS.get(module, ()):
            yield f"{module} {name}", getattr(plugin, name, None)
        if module == "pytest_codspeed.plugin":
            instrument = getattr(plugin, "instrument", None)
            yield "pytest_codspeed", getattr(instrument, "benchmarks", None)
        elif module.startswith("pytest_durations."):
            for name, values in getattr(plugin, "measurements", {}).items():
                yield f"pytest_durations {name}", values


def _plugin(config: pytest.Config, name: str) -> Any:
    module = sys.modules.get(name)
    if module is None or not config.pluginmanager.is_registered(module):
        return None
    return module
