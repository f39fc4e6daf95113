"""What ``--fkit`` does before the initial conftest files are loaded, and while they are."""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import Iterator

import pytest

from . import numprocesses, private_api
from .settings import parse_workers

CAN_FORK = hasattr(os, "fork")
"""Whether this is no Windows; where it is, Controller.prepare ends the run before any test."""


def before_conftests(early_config: pytest.Config) -> None:
    """Before user code is imported: keep GPU runtimes shut; tell plugins that ask of workers.

    Where there will be none, tests get their GPUs now; a spawned host has its worker's already.
    """
    # Without it torch.cuda.is_available() opens a CUDA runtime, which does not survive a fork.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    options = early_config.known_args_namespace
    if debugger(options) is not None or not CAN_FORK:
        return
    with contextlib.suppress(pytest.UsageError):  # reported when the options are complete
        if hasattr(options, "numprocesses"):
            numprocesses.choose_workers(options, parse_workers(options.fkit_workers))
        spawned = early_config.pluginmanager.hasplugin("pytest_fkit.sandbox.spawned")
        if numprocesses.run_alone(options) and not spawned:
            from .controller.gpus import prepare_alone

            prepare_alone(early_config, options)


@contextlib.contextmanager
def around_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Where tests are going to be collected: see what the initial conftest files leave."""
    alone = numprocesses.run_alone(early_config.known_args_namespace)
    if not CAN_FORK or not (alone or private_api.runs_in_worker()):
        yield
        return
    from .worker.leftovers import watched_conftests

    with watched_conftests(early_config):
        yield


def debugger(options: argparse.Namespace) -> str | None:
    """The option by which the user asks for the debugger, if she does."""
    for option, name in (("usepdb", "--pdb"), ("trace", "--trace")):
        if getattr(options, option, False):
            return name
    return None
