"""Private names of pytest's JUnit file."""

from __future__ import annotations

import functools
from typing import Any, Callable, cast

import _pytest._code.code
import _pytest.config
import _pytest.debugging
import _pytest.fixtures
import _pytest.junitxml
import _pytest.main
import _pytest.runner
import _pytest.skipping
import _pytest.threadexception
import _pytest.unraisableexception
import _pytest.warnings
import pytest

from ..own import own_builtins

own_builtins(globals())


def junit_log(config: pytest.Config) -> Any | None:
    """The object that writes the JUnit file, if one is written."""
    for plugin in config.pluginmanager.get_plugins():
        if type(plugin).__module__ == "_pytest.junitxml" and type(plugin).__name__ == "LogXML":
            return plugin
    return None


def junit_errors_for_deaths(log: Any, describe: Callable[[Any], tuple[str, str] | None]) -> None:
    """Have deaths written as ``<error>``, where LogXML writes ``<failure>`` for the call phase.

    :param describe: the message and the text of a report on a death, None for other reports.
    """
    original = log.node_reporter

    def node_reporter(report: Any) -> Any:
        reporter = original(report)
        death = describe(report)
        if death is not None:
            message, text = death
            add = functools.partial(_add_junit_error, reporter, message, text)
            reporter.append_failure = reporter.append_error = add
        return reporter

    log.node_reporter = node_reporter


def junit_properties(log: Any, describe: Callable[[Any], dict[str, str]]) -> None:
    """Have properties written for each test, with what its last report says.

    :param describe: called with each report on a test.
    """
    original = log.node_reporter

    def node_reporter(report: Any) -> Any:
        reporter = original(report)
        if hasattr(report, "when"):
            properties = describe(report)
            kept = [each for each in reporter.properties if each[0] not in properties]
            reporter.properties = kept + list(properties.items())
        return reporter

    log.node_reporter = node_reporter


class JunitFixtures:
    """What pytest's fixtures that add to the JUnit file find in place of the log.

    Without it they do nothing in workers, which write no such file.

    :param recorded: called with "property" or "attribute", a name and a value.
    """

    def __init__(self, family: str, recorded: Callable[[str, str, object], None]) -> None:
        self.family = "xunit1" if family == "legacy" else family
        self._recorded = recorded

    def add_global_property(self, name: object, value: object) -> None:
        """For record_testsuite_property."""
        __tracebackhide__ = True
        if not isinstance(name, str):
            given = type(name).__name__
            raise TypeError(f"name parameter needs to be a string, but {given} given")
        self._recorded("property", name, value)

    def add_attribute(self, name: str, value: object) -> None:
        """For record_xml_attribute."""
        self._recorded("attribute", name, value)

    def node_reporter(self, nodeid: object) -> JunitFixtures:
        """The object with :meth:`add_attribute`."""
        del nodeid
        return self


def watch_junit_fixtures(
    config: pytest.Config, recorded: Callable[[str, str, object], None]
) -> None:
    """Where nothing else reaches the JUnit file: hear what fixtures add to it, if there is one."""
    if not config.getoption("xmlpath", None):
        return
    log = JunitFixtures(config.getini("junit_family"), recorded)
    config.pluginmanager.register(log)  # pytest unregisters what it finds in this place
    config.stash[_pytest.junitxml.xml_key] = cast("Any", log)


def add_junit_record(log: Any, report: Any, kind: str, name: str, value: str) -> None:
    """Add what :func:`watch_junit_fixtures` told of, while `report` was in the making."""
    if kind == "property":
        log.add_global_property(name, value)
    else:
        log.node_reporter(report).add_attribute(name, value)


def _add_junit_error(reporter: Any, message: str, text: str, report: Any) -> None:
    del report
    reporter._add_simple("error", message, text)
