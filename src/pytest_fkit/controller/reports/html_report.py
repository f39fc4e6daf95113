"""The report to look at, made of the journal when the run has ended."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

import pytest

from ...gpu.answers import FailedError
from ...gpu.throwaway import Throwaway
from ...own import os, own_builtins
from ...protocol.endings import Exited

if TYPE_CHECKING:
    from pathlib import Path

own_builtins(globals())

LIMIT = 900.0
"""Seconds: 100,000 tests take less than a minute."""

# A program of its own, since the suite may have changed what this process has imported. Not what
# lies in the current directory.
_PROGRAM = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from pytest_fkit.journal.command import main; sys.exit(main())"
)


class HtmlReport:
    """Plugin: has the report made, and says where it is.

    :raises pytest.UsageError: if it can't be made here.
    """

    def __init__(self, journal: Path, path: Path) -> None:
        if importlib.util.find_spec("jinja2") is None:
            raise pytest.UsageError(
                "pytest-fkit: --fkit-html needs Jinja2: pip install 'pytest-forkit[html]'"
            )
        if path.is_dir():  # else the run would end before this is known
            raise pytest.UsageError(
                f"pytest-fkit: --fkit-html: {path}: Is a directory; expected the path of a file"
            )
        self._journal, self._path = journal, path
        self._failure = ""

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        command = [
            sys.executable, "-c", _PROGRAM, "html", str(self._journal), "-o", str(self._path),
        ]  # fmt: skip
        try:
            result = Throwaway(command, os.environ, LIMIT).wait()
        except FailedError as error:
            self._failure = str(error)
            return
        if result.ending != Exited(0):
            self._failure = result.last_line or result.ending.title

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._failure:
            text = f"pytest-fkit: there is no report in {self._path}: {self._failure}"
            terminalreporter.line(text, red=True)
        else:
            terminalreporter.line(f"fkit: report in {self._path}")
