"""What is said where our options are given and ``--fkit`` is not."""

from __future__ import annotations

import re

import pytest

from pytest_fkit.options import check_without_fkit

_VALUES = {"N|auto": "2", "auto|none|IDS": "none"}


def _options(pytester: pytest.Pytester) -> list[str]:
    """All that ``--help`` shows, with a value if they take one."""
    text = pytester.runpytest_subprocess("--help", "-p", "no:timeout").stdout.str()
    found = re.findall(r"^  (--fkit-[a-z-]+|--timeout)(?:=(\S+))?", text, re.MULTILINE)
    assert len(found) > 20
    return [f"{name}={_VALUES.get(value, '1')}" if value else name for name, value in found]


def test_no_option_is_taken_for_protection(pytester: pytest.Pytester) -> None:
    for option in _options(pytester):
        name = option.partition("=")[0]
        with pytest.raises(pytest.UsageError, match=f"{name} does nothing without --fkit"):
            check_without_fkit(pytester.parseconfig("-p", "no:timeout", option))


def test_all_of_them_are_named(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfig("--fkit-journal=a", "--fkit-widen")
    with pytest.raises(pytest.UsageError, match="--fkit-journal and --fkit-widen do nothing"):
        check_without_fkit(config)


def test_nothing_is_said_where_nothing_is_given(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_TIMEOUT", raising=False)
    pytester.makeini("[pytest]\nfkit_timeout = 5\nfkit_journal = j\nfkit_widen = true\ntimeout = 0")
    check_without_fkit(pytester.parseconfig("-p", "no:timeout", "-W", "error"))


@pytest.mark.parametrize("where", ["ini value timeout", "PYTEST_TIMEOUT"])
def test_a_limit_that_is_no_option_is_warned_of(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.delenv("PYTEST_TIMEOUT", raising=False)
    if where == "PYTEST_TIMEOUT":
        monkeypatch.setenv("PYTEST_TIMEOUT", "5")
    else:
        pytester.makeini("[pytest]\ntimeout = 5")
    pytester.makepyfile("def test_a(): pass")
    ended = pytester.runpytest_subprocess("-p", "no:timeout")
    assert ended.ret == 0
    ended.stdout.fnmatch_lines([f"*PytestConfigWarning: pytest-fkit: {where} limits no test: *"])
    as_error = pytester.runpytest_subprocess("-p", "no:timeout", "-W", "error")
    assert as_error.ret == pytest.ExitCode.USAGE_ERROR
    as_error.stderr.fnmatch_lines([f"ERROR: pytest-fkit: {where} limits no test: *"])
    without = pytester.runpytest_subprocess("-p", "no:timeout", "-W", "error", "--no-fkit")
    assert without.ret == 0
