"""The entry point: options, markers, and who gets which hooks."""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import Any, Callable, Generator

import pytest

from . import fixtures, hookspecs, markers, private_api, settings
from .controller import gpus, workers
from .controller.flaky import FailOnFlaky
from .controller.gateways import Gateways
from .controller.github import write_step_summary
from .controller.nodes import Nodes
from .controller.recording import record
from .controller.reporting import Reporting, header
from .controller.unreported import Unreported
from .gpu import options as gpu_options
from .metrics import fkit_metrics
from .worker.gpus import own_gpus
from .worker.leftovers import ConftestWatch
from .worker.plugin import Alone, Worker
from .worker.probing import probe_gpus

__all__ = ["fkit_metrics"]

_notices: pytest.StashKey[list[str]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare options and ini values."""
    settings.add_options(parser, pluginmanager)
    gpu_options.add_options(parser)
    pluginmanager.register(ConftestWatch(), "fkit-conftests")


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare what other plugins can answer."""
    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, None, None]:
    """Before user code is imported: keep GPU runtimes shut; tell plugins that ask of workers.

    Where there will be none, tests get their GPUs now; a spawned host has its worker's already.
    """
    options = early_config.known_args_namespace
    if options.fkit:
        # Without it torch.cuda.is_available() opens a CUDA runtime, which does not survive a fork.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if options.fkit and not _debugs(options):
        with contextlib.suppress(pytest.UsageError):  # reported when the options are complete
            if hasattr(options, "numprocesses"):
                workers.choose_workers(options, settings.parse_workers(options.fkit_workers))
            if not early_config.pluginmanager.hasplugin("pytest_fkit.sandbox.spawned"):
                gpus.prepare_alone(early_config, options)
    yield


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, None, None]:
    """Check the options and choose the number of workers, before xdist does."""
    if config.getoption("fkit") and not hasattr(config, "workerinput"):
        _prepare(config)
    yield


def _prepare(config: pytest.Config) -> None:
    parsed = settings.parse(config)
    notices = config.stash[_notices] = []
    if not hasattr(os, "fork"):
        raise pytest.UsageError(
            "pytest-fkit: --fkit needs os.fork(), which this platform lacks; run without --fkit"
        )
    name = _debugs(config.option)
    if name:
        notices.append(f"fkit: isolation is off, because of {name}")
        config.option.fkit = False
        return
    if config.pluginmanager.hasplugin("xdist"):
        workers.choose_workers(config.option, parsed.workers)
    else:
        notices.append("fkit: pytest-xdist is disabled, so there are no workers, as with -n0")
    gpus.prepare(config, parsed.workers)


def _debugs(options: argparse.Namespace) -> str | None:
    """The option by which the user asks for the debugger, if she does."""
    for option, name in (("usepdb", "--pdb"), ("trace", "--trace")):
        if getattr(options, option, False):
            return name
    return None


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, and the plugin for this process's role."""
    for text in markers.TEXTS:
        config.addinivalue_line("markers", text)
    if settings.honours_timeout_options(config.pluginmanager):
        config.addinivalue_line("markers", markers.TIMEOUT_TEXT)
    plugins = config.pluginmanager
    plugins.register(fixtures, "fkit-fixtures")
    if not config.getoption("fkit"):
        return
    parsed = config.stash[settings.KEY] = settings.parse(config)
    orders: dict[str, Any] | None = getattr(config, "workerinput", {}).get("fkit")
    if orders is not None:
        worker = Worker(config, parsed, orders)
        plugins.register(worker, "fkit-worker")
        own_gpus(config, orders["worker"], worker.show)
        probe_gpus(config, orders["worker"], worker.show)
        return
    if hasattr(config, "workerinput"):
        return
    gpus.settle(config)
    if config.option.collectonly:
        return
    reporting = Reporting()
    plugins.register(reporting, "fkit-reporting")
    write_step_summary(config, reporting.happened)
    recorder, resuming = record(config, parsed)
    show = _terminal_line(config)
    if config.getoption("tx", None) and config.getoption("dist", "no") != "no":
        found = config.stash.get(gpus.KEY, None)
        # None where there are not going to be workers.
        gateways = None if found is None else Gateways(config, found, show)
        nodes = Nodes(config, parsed, show, recorder, resuming, gateways)
        plugins.register(Unreported(config, nodes.unrunnable), "fkit-unreported")
        plugins.register(nodes, "fkit-nodes")
        reporting.retired = nodes.rerouting.retired
        if gateways is not None:
            plugins.register(gateways, "fkit-gateways")
        if config.getoption("fail_on_flaky", False):
            plugins.register(FailOnFlaky(), "fkit-flaky")
    else:
        plugins.register(Alone(config, parsed, recorder, resuming), "fkit-alone")
        own_gpus(config, "main", show)


def _terminal_line(config: pytest.Config) -> Callable[[str], None]:
    def write(line: str) -> None:
        reporter: Any = config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            private_api.begin_terminal_line(reporter)
            # Apart: where the stream can't show a text, all of it is written with escapes.
            reporter.write(line)
            reporter.write("\n", flush=True)

    return write


def pytest_report_header(config: pytest.Config) -> list[str] | None:
    """Say how tests are run."""
    notices: list[str] = config.stash.get(_notices, [])
    parsed = config.stash.get(settings.KEY, None)
    if parsed is None:
        return notices or None
    lines, owners = gpus.header_lines(config)
    return [*notices, *lines, header(len(gpus.seats_of_run(config)), parsed, owners)]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Say what has to be said where there is no header."""
    gpus.show_notices(session.config, _terminal_line(session.config))
