"""What is said of versions of pytest and xdist that nobody tried."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from pytest_fkit import __version__, compat
from pytest_fkit.compat import versions
from pytest_fkit.compat.versions import NEWEST, PRIVATE_NAMES, missing, untried, warning


@pytest.mark.parametrize(
    ("found", "new"),
    [
        ({"pytest": "7.0.0"}, []),
        ({"pytest": "9.2.7", "pytest-xdist": "3.8.1"}, []),
        ({"pytest": "9.3.0rc1", "pytest-xdist": "3.8.0"}, ["pytest"]),
        ({"pytest": "9.10.0.dev3+g12ab"}, ["pytest"]),
        ({"pytest": "10.0.0", "pytest-xdist": "4.0.0"}, ["pytest", "pytest-xdist"]),
        ({"pytest": "nobody knows"}, []),
    ],
)
def test_only_a_newer_minor_version_is_untried(found: dict[str, str], new: list[str]) -> None:
    assert untried(found) == new
    assert bool(warning(found)) == bool(new)


def test_one_line_names_all_that_is_untried() -> None:
    ours = f"never tried with pytest-fkit {__version__}; the newest tried:"
    assert warning({"pytest": "10.0.1"}) == f"pytest 10.0.1 was {ours} 9.2"
    both = warning({"pytest": "10.0.1", "pytest-xdist": "4.1"})
    assert both == f"pytest 10.0.1 and pytest-xdist 4.1 were {ours} 9.2 and 3.8"


def test_names_that_are_gone_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {"_pytest.runner": ("_nobody", "runtestprotocol"), "_pytest.nowhere": ("_any",)}
    monkeypatch.setitem(PRIVATE_NAMES, "pytest", gone)
    assert missing(["pytest"]) == ["_pytest.runner._nobody", "_pytest.nowhere._any"]


def test_the_newest_versions_that_were_tried_have_all_names() -> None:
    found = {
        name: version
        for name, version in versions.installed().items()
        if versions._major_minor(version) >= NEWEST[name]
    }
    assert missing(list(found)) == []


_OTHERS = {
    "_cleanup",  # before pytest 8.4
    "_env_timeout_method",  # of pytest-timeout, if it is there
    "_exit_callbacks",  # of contextlib.ExitStack
    "_file", "_io", "_remove_plugin",  # of a terminal writer, execnet and pluggy
    "_getframe",  # of sys
    "_rinfo",  # of execnet
    "_json_report_extra",  # of pytest-json-report
    "_line_profile",  # of pytest-line-profiler
    "_nodeid", "_testcase",  # before pytest 9.2, and 8.2
    "_reporter",  # ours
    "_snapshot_session",  # of pytest-insta
}  # fmt: skip


def _is_name(node: ast.expr, *names: str) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def test_the_table_has_every_private_name_that_compat_uses() -> None:
    known = {
        name for package in PRIVATE_NAMES.values() for names in package.values() for name in names
    }
    used = set()
    for path in Path(compat.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and not _is_name(node.value, "self"):
                used.add(node.attr)
            elif isinstance(node, ast.Call) and _is_name(node.func, "getattr", "hasattr"):
                name = node.args[1]
                used.add(str(name.value) if isinstance(name, ast.Constant) else "")
    private = {name for name in used if name.startswith("_") and not name.startswith("__")}
    modules = {"_pytest", "_code"}
    assert private - modules - known - _OTHERS == set()


def test_the_oldest_versions_that_may_be_installed_are_those_that_tox_tries() -> None:
    root = Path(__file__).parents[2]
    allowed = re.findall(
        r'^  "([a-z-]+)>=([\d.]+)"', (root / "pyproject.toml").read_text(encoding="utf-8"), re.M
    )
    tried = dict(re.findall(r"oldest: (.+)==(.+)", (root / "tox.ini").read_text(encoding="utf-8")))
    assert len(allowed) == len(tried)
    for name, oldest in allowed:
        assert re.fullmatch(rf"{re.escape(oldest)}(\.0)?", tried[name]), name


_NEWER = """
import pytest
from pytest_fkit.compat import versions

pytest.__version__ = "10.0.1"
{}
"""


def test_a_run_with_a_newer_pytest_says_so_and_passes(pytester: pytest.Pytester) -> None:
    # Not all of the table: the newest pytest for this Python may be older than the newest tried.
    there = 'versions.PRIVATE_NAMES["pytest"] = {"_pytest.runner": ("runtestprotocol",)}'
    pytester.makepyfile(newer=_NEWER.format(there), test_it="def test_it(): pass")
    pytester.syspathinsert()
    ended = pytester.runpytest_subprocess("-p", "newer", "--fkit", "-n0")
    ended.assert_outcomes(passed=1)
    line = f"fkit: pytest 10.0.1 was never tried with pytest-fkit {__version__}; *"
    ended.stdout.fnmatch_lines([line])
    assert ended.stdout.str().count("never tried") == 1


def test_a_run_without_a_private_name_does_not_begin(pytester: pytest.Pytester) -> None:
    gone = 'versions.PRIVATE_NAMES["pytest"] = {"_pytest.runner": ("_gone",)}'
    pytester.makepyfile(newer=_NEWER.format(gone), test_it="def test_it(): pass")
    pytester.syspathinsert()
    ended = pytester.runpytest_subprocess("-p", "newer", "--fkit", "-n0")
    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    ended.stderr.fnmatch_lines(["ERROR: pytest-fkit: pytest 10.0.1 *: _pytest.runner._gone. *"])
    without = pytester.runpytest_subprocess("-p", "newer", "--no-fkit")
    assert without.ret == 0
