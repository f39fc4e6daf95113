"""What tests can't be repeated with."""

from __future__ import annotations

from typing import Iterator

import pytest

from ...compat import xdist_controller
from ...compat.pytest_hooks import is_loaded
from ...config.numprocesses import run_alone
from ...config.settings import Settings
from ...own import own_builtins

own_builtins(globals())


def check_repeat(config: pytest.Config, settings: Settings) -> None:
    """Check the options that go together with ``--fkit-repeat``.

    :raises pytest.UsageError: naming the other one, and the fix.
    """
    why = next(_troubles(config, settings), "")
    if why:
        raise pytest.UsageError(f"pytest-fkit: --fkit-repeat={settings.repeat}: {why}")


def _troubles(config: pytest.Config, settings: Settings) -> Iterator[str]:
    if settings.isolation != "function":
        yield (
            f"each repetition has a process of its own, and --fkit-isolation={settings.isolation} "
            "lets tests share one; leave it out, or use --fkit-isolation=function"
        )
    if settings.resume is not None:
        yield (
            "a rate of failures belongs to one run, which --fkit-resume can't continue; leave "
            "it out, and start again with --fkit-journal"
        )
    if run_alone(config.option):
        yield "repetitions are distributed to workers, and there are none; use -n1 or more"
    dist = config.getoption("dist", "no")
    if dist not in ("no", "load", "worksteal"):
        yield (
            f"repetitions of a test go to all workers, which --dist={dist} forbids; leave it out, "
            "or use --dist=load"
        )
    if xdist_controller.other_schedulers(config):
        yield "a plugin or a conftest.py has its own scheduler, which can't repeat tests"
    for name in ("reruns", "force_reruns"):
        if config.getoption(name, None):
            yield (
                f"--{name.replace('_', '-')}={config.getoption(name)} hides the failures that "
                "--fkit-repeat counts; leave it out"
            )
    # Newer ones are told to rerun nothing, whatever marks and ini files say, see worker.py.
    if is_loaded(config, "rerunfailures") and not hasattr(config.option, "force_reruns"):
        yield (
            "this old pytest-rerunfailures hides the failures that --fkit-repeat counts; "
            "switch it off with -p no:rerunfailures"
        )
    if config.getoption("setuponly", False):
        yield "--setup-only and --setup-plan run no test; leave them out"
