"""How many workers there are."""

from __future__ import annotations

import argparse
import os
import sys

import pytest

_AUTO = "PYTEST_XDIST_AUTO_NUM_WORKERS"

# With these, pytest shows something and runs no test.
_SHOWING = ("collectonly", "showfixtures", "show_fixtures_per_test", "markers", "cacheshow", "help")


def choose_workers(options: argparse.Namespace, workers: int | str | None) -> None:
    """Give xdist the number of workers, before it reads its options.

    :param workers: what ``--fkit-workers`` says.
    :raises pytest.UsageError: if ``-n`` says something else.
    """
    given = options.numprocesses
    if given is not None and workers is not None and given != workers:
        raise pytest.UsageError(
            f"pytest-fkit: -n {given} and --fkit-workers={workers} contradict each other; "
            "they mean the same, give one of them"
        )
    if given is not None or any(getattr(options, name, False) for name in _SHOWING):
        return
    if workers is not None:
        options.numprocesses = workers
    elif not getattr(options, "tx", None):
        options.numprocesses = 1


def shows_only(options: argparse.Namespace) -> bool:
    """Whether pytest will show something else than tests, and run none."""
    return any(getattr(options, name, False) for name in _SHOWING if name != "collectonly")


def count_text(number: int) -> str:
    """As in "2 workers"."""
    return {0: "no workers", 1: "1 worker"}.get(number, f"{number} workers")


def run_alone(options: argparse.Namespace) -> bool:
    """Whether the pytest process itself takes a worker's place.

    :param options: the command line's; in a worker they are those of the controller, which has
        none of the values that mean this.
    """
    if not hasattr(options, "numprocesses"):
        return True  # without xdist
    if options.numprocesses is None:
        return bool(options.tx) and options.dist == "no" and not options.distload
    return bool(options.numprocesses == 0)


def decide_auto(config: pytest.Config, slices: int) -> None:
    """Let ``auto`` mean the number of GPU slices, where nobody else says what it means."""
    if config.option.numprocesses == "auto" and not os.environ.get(_AUTO):
        config.option.numprocesses = _others_auto(config) or slices or "auto"


def planned(config: pytest.Config, workers: int | str | None, slices: int) -> int:
    """How many workers a run would have where pytest only shows what it would run."""
    if workers != "auto":
        return int(workers or 1)
    variable = os.environ.get(_AUTO, "")
    return int(variable) if variable.isdigit() else _others_auto(config) or slices


def _others_auto(config: pytest.Config) -> int | None:
    """What a plugin or a conftest.py says, other than xdist's own implementation."""
    ask = config.pluginmanager.subset_hook_caller(
        "pytest_xdist_auto_num_workers", remove_plugins=[sys.modules["xdist.plugin"]]
    )
    answer: int | None = ask(config=config)
    return answer
