"""The table of options, what comes from it, and what is said where ``--fkit`` is not given."""

from __future__ import annotations

import re

import pytest

from options_table import DETAILS, PAGE, XDIST, with_tables
from pytest_fkit.config.declaration import check_without_fkit
from pytest_fkit.config.options import BY_NAME, COMMAND_LINE, GROUPS, INI, OPTIONS, Option
from pytest_fkit.config.settings import (
    GpuSettings,
    MachineSettings,
    Settings,
    gpu_settings_of,
    machine_settings_of,
    settings_of,
)
from pytest_fkit.gpu.errors.patterns import user_patterns

WRONG = {
    "lines": "a(b", "masks": "/a(b/", "packages": "a b", "patterns": "*",
    "path": "~nobody-at-all/x", "command": "it's",
}  # fmt: skip
"""By type, what can't be meant; of all others "wrong"."""


def test_the_page_of_options_is_that_of_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "run `python tests/options_table.py`"
    assert {*DETAILS, *XDIST} <= set(BY_NAME)
    assert all(f"`{name}`" in page for name, each in BY_NAME.items() if INI in each.where)


def _settings(config: pytest.Config) -> None:
    settings_of(config)
    gpu_settings_of(config, config.option)
    machine_settings_of(config)
    user_patterns(config)


def _arguments(option: Option) -> list[tuple[str, str]]:
    """What gives it a wrong value, and what that is called."""
    wrong = WRONG.get(option.type, "wrong")
    found = []
    if COMMAND_LINE in option.where and option.metavar:
        found.append((f"{option.flag}={wrong}", f"{option.flag}={wrong}: expected "))
    for flag in {option.flag, option.negation} - {option.metavar and option.flag, ""}:
        if option.negation:
            found.append((f"{flag}=on", f"{flag}=on: expected no value; {option.flag}"))
    if INI in option.where:
        found.append((f"--override-ini={option.name}={wrong}", f"ini value {option.name}"))
    return found


# pytest 7's own hook is wrapped in the old way.
@pytest.mark.filterwarnings("ignore:A plugin raised an exception during an old-style hookwrapper")
@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: str(option.name))
def test_a_wrong_value_is_named_wherever_it_is_given(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, option: Option
) -> None:
    if option.variable:
        monkeypatch.delenv(option.variable, raising=False)
    for argument, said in _arguments(option):
        with pytest.raises(pytest.UsageError, match=f"^pytest-fkit: {re.escape(said)}"):
            _settings(pytester.parseconfig("-p", "no:timeout", argument))
    if option.variable:
        monkeypatch.setenv(option.variable, "wrong")
        with pytest.raises(pytest.UsageError, match=f"{option.variable}=wrong: expected "):
            _settings(pytester.parseconfig("-p", "no:timeout"))


def test_of_a_switch_and_its_negation_the_last_one_counts(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nfkit_widen = on\nfkit_warmup = on\naddopts = --fkit-fail-on-retry")
    switches = [option for option in OPTIONS if option.negation]
    assert len(switches) == 5
    for option in switches:
        config = pytester.parseconfig(option.flag + "=on" * bool(option.metavar), option.negation)
        assert config.getoption(option.name) is False
    parsed = settings_of(pytester.parseconfig("--no-fkit-widen", "--no-fkit-fail-on-retry"))
    assert (parsed.widen, parsed.warmup, parsed.fail_on_retry) == (False, True, False)
    assert not settings_of(pytester.parseconfig("--no-fkit-probe")).probe
    check_without_fkit(pytester.parseconfig("-p", "no:timeout", "--no-fkit-fail-on-retry"))


def test_every_entry_of_the_table_has_a_setting() -> None:
    fields = {*Settings._fields, *GpuSettings._fields, *MachineSettings._fields}
    others = {"fkit", "timeout", "fkit_gpu_errors"}  # read where they are used
    named = {name for name, option in BY_NAME.items() if {COMMAND_LINE, INI} & set(option.where)}
    assert {f"fkit_{name}" for name in fields} & named == named - others


def test_help_shows_the_groups(pytester: pytest.Pytester) -> None:
    text = pytester.runpytest_subprocess("--help", "-p", "no:timeout").stdout.str()
    assert [text.count(f"\n{heading}:\n") for heading in GROUPS.values()] == [1, 1, 1, 1]
    for option in OPTIONS:
        assert not option.negation or option.negation in text
    flags = {option.flag for option in OPTIONS if COMMAND_LINE in option.where}
    assert set(re.findall(r"the same as\s+(--[\w-]+)", text)) <= flags


_VALUES = {"N|auto": "2", "auto|none|IDS": "none", "slurm|ssh:HOST,...|exec:NAME,...": "slurm"}


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
