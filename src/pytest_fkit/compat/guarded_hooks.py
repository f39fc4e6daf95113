"""A plugin that can't take a report of ours costs its own part of it, not the run.

A report that pytest did not make, on a process that died for example, may lack what a plugin's or a
conftest.py's hooks put into the others.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, Callable, Generator, cast

import pytest

from ..own import os, own_builtins, warnings
from ..protocol.event_file import facts_of
from ..system.stack_texts import entries
from .pytest_hooks import implementations, is_foreign, module_of, wraps

if TYPE_CHECKING:
    from pluggy import HookImpl

own_builtins(globals())

_GUARDED = ("pytest_runtest_logreport", "pytest_report_teststatus")
_STOPS = (pytest.Session.Failed, pytest.UsageError)


def record_warning(config: pytest.Config, text: str, nodeid: str = "") -> None:
    """Add a warning of ours to the summary, whatever the filters say.

    Not by ``warnings.warn()``, which raises where warnings are errors.
    """
    warning = pytest.PytestWarning(f"pytest-fkit: {text}")
    config.hook.pytest_warning_recorded.call_historic(
        kwargs={
            "warning_message": warnings.WarningMessage(warning, type(warning), __file__, 0),
            "when": "runtest",
            "nodeid": nodeid,
            "location": None,
        }
    )


class GuardedHooks:
    """Plugin of a process in which others hear of reports."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl
    def pytest_plugin_registered(self, plugin: object) -> None:
        """Guard what it implements; pytest tells of those that were there before, too."""
        for each in implementations(self._config.hook, *_GUARDED):
            if each.plugin is plugin and _concerns(each):
                cast("Any", each).function = (self._wrapper if wraps(each) else self._plain)(each)

    def _plain(self, implementation: HookImpl) -> Callable[..., object]:
        function: Callable[..., object] = implementation.function
        position = implementation.argnames.index("report")

        def guarded(*args: Any) -> object:
            try:
                return function(*args)
            except Exception as error:
                if not self._is_told(implementation, args[position], error):
                    raise
                return None

        return guarded

    def _wrapper(self, implementation: HookImpl) -> Callable[..., object]:
        function: Callable[..., Any] = implementation.function
        position = implementation.argnames.index("report")

        def guarded(*args: Any) -> Generator[None, Any, Any]:
            report = args[position]
            if not _is_ours(report):
                return (yield from function(*args))
            around = function(*args)
            try:
                next(around)
            except Exception as error:
                if not self._is_told(implementation, report, error):
                    raise
                return (yield)
            try:
                result = yield
            except BaseException as error:
                try:
                    around.throw(error)
                except StopIteration as end:
                    return end.value
                raise
            try:
                around.send(result)
            except StopIteration as end:
                return end.value
            except Exception as error:
                if not self._is_told(implementation, report, error):
                    raise
            return result

        return guarded

    def _is_told(self, implementation: HookImpl, report: Any, error: Exception) -> bool:
        """Warn of an error that costs the plugin its part of a report of ours; else False."""
        if not _is_ours(report) or isinstance(error, _STOPS):
            return False
        name = _name(self._config, implementation.plugin)
        record_warning(
            self._config,
            f"{name} has not heard of a report on {report.nodeid} ({report.when}), which "
            f"pytest-fkit made: {type(error).__name__}: {error} ({_place(error)})",
        )
        return True


def _name(config: pytest.Config, plugin: object) -> str:
    path = getattr(plugin, "__file__", None) if isinstance(plugin, ModuleType) else None
    name = config.pluginmanager.get_name(plugin)
    if path is not None and name == path:  # a conftest.py
        return os.path.relpath(path, str(config.rootpath))
    return module_of(plugin) if name is None or name.isdigit() else name


def _concerns(implementation: HookImpl) -> bool:
    is_xdists = module_of(implementation.plugin).partition(".")[0] == "xdist"
    return is_foreign(implementation) and not is_xdists and "report" in implementation.argnames


def _is_ours(report: object) -> bool:
    facts = facts_of(report)
    return bool(facts.made or facts.death or facts.resumed)


def _place(error: Exception) -> str:
    *_, last = entries(error.__traceback__)
    return f"{last.tb_frame.f_code.co_filename}:{last.tb_lineno}"
