"""How many workers ``auto`` means, and numbers of them in words."""

from __future__ import annotations

import sys

import pytest

from ...own import os, own_builtins

own_builtins(globals())

_AUTO = "PYTEST_XDIST_AUTO_NUM_WORKERS"


def count_text(number: int) -> str:
    """As in "2 workers"."""
    return {0: "no workers", 1: "1 worker"}.get(number, f"{number} workers")


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
