"""What the user reads: header, letters, the summary, and JUnit's elements."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Tuple, Union

import pytest

from .. import private_api


class DeathText(str):
    """The text of a report, with the one-line message that pytest's short summary asks for."""

    __slots__ = ("message",)

    message: str

    @property
    def reprcrash(self) -> DeathText:
        """pytest takes the message from here."""
        return self


def death_of(report: Any) -> Optional[str]:
    """The headline of a report on a death, None for any other report."""
    if getattr(report, "outcome", None) != "failed":
        return None
    headline = getattr(report, "fkit_death", None)
    return str(headline) if headline is not None else None


class Reporting:
    """Plugin of the process that owns the terminal."""

    def __init__(self, config: pytest.Config) -> None:
        self._deaths: List[Tuple[str, str, str]] = []
        log = private_api.junit_log(config)
        if log is not None:
            private_api.junit_errors_for_deaths(log, _junit_error)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: Any
    ) -> Optional[Tuple[str, str, Union[str, Tuple[str, Mapping[str, bool]]]]]:
        """Count a death as an error, whatever the phase."""
        headline = death_of(report)
        if headline is None:
            return None
        word = f"ERROR ({headline.split(' at ')[0]})"
        return "error", "E", (word, {"red": True, "bold": True})

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        """Remember deaths."""
        headline = death_of(report)
        if headline is not None:
            worker = getattr(report, "fkit_worker", "")
            self._deaths.append((report.nodeid, headline, worker))

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: Any) -> None:
        """Remember modules whose import ended the process."""
        headline = death_of(report)
        if headline is not None:
            text = DeathText(report.longrepr)
            text.message = headline
            report.longrepr = text
            self._deaths.append((report.nodeid, f"{headline}, when imported", ""))

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: Any) -> None:
        """Make xdist's report on a dead worker one of ours."""
        worker = report.node.gateway.id
        headline = f"lost: worker {worker} died"
        report.fkit_death = headline
        report.fkit_worker = worker
        text = DeathText(
            f"{crashitem}: worker {worker} died while the test was running, or about to run; "
            "what it was running is ended"
        )
        text.message = headline
        report.longrepr = text

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """List the deaths, if there are any."""
        if not self._deaths:
            return
        number = len(self._deaths)
        terminalreporter.section("pytest-fkit summary")
        tests = "1 test" if number == 1 else f"{number} tests"
        were = "was reported as an error" if number == 1 else "were reported as errors"
        terminalreporter.line(f"{tests} crashed and {were}:")
        width = max(len(nodeid) for nodeid, _, _ in self._deaths)
        for nodeid, headline, worker in self._deaths:
            what, _, where = headline.partition(" at ")
            where = where.partition(" in ")[0]
            columns = (what, where, worker)
            terminalreporter.line(
                f"  {nodeid:{width}}  " + "  ".join(column for column in columns if column)
            )


def _junit_error(report: Any) -> Optional[Tuple[str, str]]:
    headline = death_of(report)
    if headline is None or not hasattr(report, "when"):
        return None
    output = "".join(f"\n--- {name} ---\n{text}" for name, text in report.sections)
    return f"died in {report.when}: {headline}", f"{report.longrepr}{output}"


def header(config: pytest.Config, settings: Any) -> str:
    """The line in pytest's header."""
    number = len(config.getoption("tx", None) or [])
    workers = {0: "no workers", 1: "1 worker"}.get(number, f"{number} workers")
    timeout = settings.timeout if settings.others_timeout is None else settings.others_timeout
    parts = [
        workers,
        f"isolation: {settings.isolation}",
        f"timeout: {timeout:g} s" if timeout else "timeout: none",
    ]
    if settings.memory_limit:
        from ..endings import format_size

        parts.append(f"memory limit: {format_size(settings.memory_limit)}")
    return "fkit: " + ", ".join(parts)
