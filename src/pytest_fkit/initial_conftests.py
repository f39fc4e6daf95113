"""What ``--fkit`` does before the initial conftest files are loaded, and while they are."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import Iterator

import pytest

from pytest_fkit_installation import check_installation

from .compat import xdist_worker
from .config import numprocesses
from .config.first_environment import remember_environment
from .config.settings import STARTUP_PATH, asks_for_records, read, said
from .own import own_imports

_FOR_WORKERS = ("controller.workers.gateways", "controller.workers.nodes")
"""What a controller imports if it has workers."""


def before_conftests(early_config: pytest.Config) -> None:
    """Before user code is imported: keep GPU runtimes shut; choose the number of workers.

    Without workers, assign GPUs to the tests now; a spawned host has its worker's already.

    :raises pytest.UsageError: if another project with this name is installed, too, or if nothing
        can be known of processes.
    """
    if not early_config.pluginmanager.hasplugin("fkit-installation"):  # loaded by -p
        check_installation()
    remember_environment()
    _import("gpu.slices.ports")  # for fixtures.py
    # Without it torch.cuda.is_available() opens a CUDA runtime, which does not survive a fork.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    options = early_config.known_args_namespace
    if numprocesses.debugger(options) is not None or not numprocesses.CAN_FORK:
        return
    if sys.platform == "linux" and not os.access("/proc/self/fd", os.R_OK):
        raise pytest.UsageError(
            "pytest-fkit: /proc is not mounted, which shows processes and their descriptors; "
            "`mount -t proc proc /proc` mounts it, --no-fkit runs without"
        )
    with contextlib.suppress(pytest.UsageError):  # reported when the options are complete
        if hasattr(options, "numprocesses"):
            numprocesses.choose_workers(options, read(early_config, "fkit_workers", options))
        if numprocesses.run_alone(options) and not _is_spawned(early_config):
            with own_imports():
                from .controller.workers.gpus import prepare_alone

            prepare_alone(early_config, options)


@contextlib.contextmanager
def around_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Import what this process needs; where it will fork tests, watch what conftest files leave."""
    remember_environment()  # with what before_conftests has set
    if not numprocesses.CAN_FORK or _is_spawned(early_config):
        yield
        return
    early_config.stash[STARTUP_PATH] = [str(entry) for entry in sys.path]
    alone = numprocesses.run_alone(early_config.known_args_namespace)
    if xdist_worker.runs_in_worker():
        _import("worker.worker")
    else:
        _import("controller.controller")
        _import(*(("controller.alone",) if alone else _FOR_WORKERS))
        if said(early_config, "fkit_machines", early_config.known_args_namespace) is not None:
            _import("controller.workers.elsewhere")
        if asks_for_records(early_config, early_config.known_args_namespace):
            _import("controller.reports.recording")
        if not alone:
            yield
            return
    with own_imports():
        from .worker.tests.leftovers import watched_conftests
    with watched_conftests(early_config):
        yield


def _is_spawned(early_config: pytest.Config) -> bool:
    """Whether this is a host that is a fresh interpreter."""
    return bool(early_config.pluginmanager.hasplugin("pytest_fkit.sandbox.spawned"))


def _import(*names: str) -> None:
    """Before they are needed: a conftest.py may put its own psutil.py in the way of ours."""
    with own_imports():
        for name in names:
            importlib.import_module(f"{__package__}.{name}")
