"""Private names of pytest's JUnit file."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable, cast

import _pytest.junitxml
import pytest

from ..own import own_builtins

if TYPE_CHECKING:
    from _pytest.junitxml import LogXML as LogXML

own_builtins(globals())


def junit_log(config: pytest.Config) -> LogXML | None:
    """The object that writes the JUnit file, if one is written."""
    plugins = config.pluginmanager.get_plugins()
    return next((each for each in plugins if isinstance(each, _pytest.junitxml.LogXML)), None)


def junit_errors_for_deaths(
    log: LogXML, describe: Callable[[pytest.TestReport], tuple[str, str] | None]
) -> None:
    """Write ``<error>`` for deaths, where LogXML writes ``<failure>`` for the call phase.

    :param describe: the message and the text of a report on a death, None for other reports.
    """

    def change(reporter: Any, report: pytest.TestReport) -> None:
        death = describe(report)
        if death is not None:
            add = functools.partial(_add_error, reporter, *death)
            reporter.append_failure = reporter.append_error = add

    _change_reporters(log, change)


def _add_error(reporter: Any, message: str, text: str, _report: object) -> None:
    reporter._add_simple("error", message, text)


def junit_properties(log: LogXML, describe: Callable[[pytest.TestReport], dict[str, str]]) -> None:
    """Write properties for each test, with what its last report says."""

    def change(reporter: Any, report: pytest.TestReport) -> None:
        if hasattr(report, "when"):
            properties = describe(report)
            kept = [each for each in reporter.properties if each[0] not in properties]
            reporter.properties = kept + list(properties.items())

    _change_reporters(log, change)


def _change_reporters(log: LogXML, change: Callable[[Any, pytest.TestReport], None]) -> None:
    """Call `change` with what writes a test into the file, and each report that it writes."""
    original = log.node_reporter

    def node_reporter(report: Any) -> Any:
        reporter = original(report)
        if not isinstance(report, str):  # "internal", of an error in pytest or a plugin
            change(reporter, report)
        return reporter

    log.node_reporter = node_reporter  # type: ignore[method-assign]


class JunitFixtures:
    """Stands for LogXML where pytest's fixtures that add to the JUnit file look for it.

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
    """Hear what fixtures add to the JUnit file, if there is one, where nothing else reaches it."""
    if not config.getoption("xmlpath", None):
        return
    log = JunitFixtures(config.getini("junit_family"), recorded)
    config.pluginmanager.register(log)  # pytest unregisters what it finds in this place
    config.stash[_pytest.junitxml.xml_key] = cast("Any", log)


def add_junit_record(
    log: LogXML, report: pytest.TestReport, kind: str, name: str, value: str
) -> None:
    """Add what :func:`watch_junit_fixtures` heard while `report` was made."""
    if kind == "property":
        log.add_global_property(name, value)
    else:
        log.node_reporter(report).add_attribute(name, value)
