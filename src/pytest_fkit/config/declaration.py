"""Declares the table of options to pytest: the command line, ini values, marks."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
from typing import Any, Iterator

import pytest

from . import others_options
from .options import (
    BY_NAME,
    COMMAND_LINE,
    GROUPS,
    INI,
    LISTS,
    MARK_ARGUMENTS,
    OPTIONS,
    TESTS,
    Option,
)

_MARKS = (
    f"fkit({', '.join(f'{name}=None' for name in MARK_ARGUMENTS)}): "
    + "; ".join(
        f"{name}: {', '.join((option.help, *option.choices))}"
        for name, option in MARK_ARGUMENTS.items()
    ),
    "fkit_skip: the test shares a process with the other fkit_skip tests of its worker",
    "fkit_serial: no two tests with this mark run at the same time",
    "fkit_single_gpu: the test sees one GPU",
    "fkit_multi_gpu(number=2): the test sees that many GPUs",
)
_TIMEOUT_MARK = "timeout(seconds): time limit of the test, as pytest-timeout's"


class _Switch(argparse.Action):
    """An option without value and its negation, of which the last one counts."""

    def __init__(self, **declared: Any) -> None:
        super().__init__(nargs=0, **declared)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        del parser, values
        setattr(namespace, self.dest, not str(option_string).startswith("--no-"))


def add_options(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the options and ini values.

    :raises pytest.UsageError: for a value that no option takes.
    """
    _refuse_values_of_switches(pluginmanager)
    for option in OPTIONS:
        if option.name != "timeout" or honours_timeout_options(pluginmanager):
            if COMMAND_LINE in option.where:
                _add_to_command_line(parser.getgroup(option.group, GROUPS[option.group]), option)
            if INI in option.where:
                _add_ini(parser, option)
    others_options.declare(parser.getgroup(TESTS))


def _refuse_values_of_switches(pluginmanager: pytest.PytestPluginManager) -> None:
    """Here, since argparse would end with a message of its own that names no fix."""
    config: pytest.Config | None = pluginmanager.get_plugin("pytestconfig")
    if config is None:
        return
    switches = {option.negation: option for option in OPTIONS if option.negation}
    switches.update({each.flag: each for each in switches.values() if not each.metavar})
    for argument in _arguments(config):
        flag, equals, _ = argument.partition("=")
        if equals and flag in switches:
            option = switches[flag]
            on = option.flag + ("=on" if option.metavar else "")
            raise pytest.UsageError(
                f"pytest-fkit: {argument}: expected no value; {on} switches it on, "
                f"{option.negation} off"
            )


def _arguments(config: pytest.Config) -> Iterator[str]:
    """What argparse is going to see."""
    try:
        configured = config.getini("addopts")
    except (AttributeError, KeyError, ValueError):  # of pytest.main(plugins=…): not read yet
        configured = []
    yield from shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))
    yield from configured
    yield from map(str, config.invocation_params.args)


def _add_to_command_line(group: pytest.OptionGroup, option: Option) -> None:
    if not option.metavar:
        group.addoption(option.flag, option.negation, action=_Switch, help=_described(option))
        return
    group.addoption(option.flag, metavar=option.metavar, help=_described(option))
    if option.negation:
        group.addoption(
            option.negation, action="store_false", dest=option.name, default=None,
            help=f"the same as {option.flag}=off",
        )  # fmt: skip


def _add_ini(parser: pytest.Parser, option: Option) -> None:
    if option.type in LISTS:
        parser.addini(option.name, option.help, type="linelist", default=[])
    elif COMMAND_LINE in option.where:
        on_or_off = ", on or off" if option.type == "switch" else ""
        parser.addini(option.name, f"the same as {option.flag}{on_or_off}")
    else:
        parser.addini(option.name, f"{option.metavar}: {_described(option)}")


def _described(option: Option) -> str:
    default = [f"default: {option.default_text}"] if option.default_text else []
    notes = "; ".join([*default, *option.notes])
    return f"{option.help} ({notes})" if notes else option.help


def add_marks(config: pytest.Config) -> None:
    for text in _MARKS:
        config.addinivalue_line("markers", text)
    if honours_timeout_options(config.pluginmanager):
        config.addinivalue_line("markers", _TIMEOUT_MARK)


def check_without_fkit(config: pytest.Config) -> None:
    """Without ``--fkit`` and ``--no-fkit``: refuse options that would do nothing.

    :raises pytest.UsageError: naming the options that need ``--fkit``.
    """
    ours = honours_timeout_options(config.pluginmanager)
    flags = [
        option.flag
        for option in OPTIONS
        if COMMAND_LINE in option.where
        and (ours or option.name != "timeout")
        and config.getoption(option.name) not in (None, False)
    ]
    flags += others_options.given(config.option)
    where = _timeout_elsewhere(config) if ours else None
    if not flags and where is None:
        return
    from .numprocesses import shows_only  # not needed by most runs

    if shows_only(config.option):
        return
    if flags:
        does = "does" if len(flags) == 1 else "do"
        raise pytest.UsageError(
            f"pytest-fkit: {' and '.join(flags)} {does} nothing without --fkit; add --fkit, or "
            "--no-fkit if tests are to run without it"
        )
    # Plain pytest would say that it knows no such ini value.
    text = (
        f"pytest-fkit: {where} limits no test: pytest-timeout is not active, and --fkit is not "
        "given; add it, or --no-fkit if tests are to run without a limit"
    )
    try:
        config.issue_config_time_warning(pytest.PytestConfigWarning(text), stacklevel=2)
    except pytest.PytestConfigWarning:  # a filter makes errors of them
        raise pytest.UsageError(text) from None


def _timeout_elsewhere(config: pytest.Config) -> str | None:
    """Where a time limit is given that pytest-timeout would honour, other than its option."""
    try:
        given = config.getini("timeout")
    except (TypeError, pytest.UsageError):  # a number, in pytest 9's native TOML
        return "ini value timeout"
    if given not in ("", "0"):
        return "ini value timeout"
    variable = BY_NAME["timeout"].variable
    return variable if os.environ.get(variable) else None


def honours_timeout_options(pluginmanager: pytest.PytestPluginManager) -> bool:
    """Whether ``--timeout`` and the like are ours, since pytest-timeout is absent."""
    return importlib.util.find_spec("pytest_timeout") is None or pluginmanager.is_blocked("timeout")
