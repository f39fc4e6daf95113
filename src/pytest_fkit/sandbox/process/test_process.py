"""Prepares a process to run tests: plugins, fault handler, no debugger."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import pytest

from ... import system
from ...compat import pytest_hooks, pytest_junit, pytest_nodes, pytest_session
from ...compat.kept_values import report_each_test
from ...config.folders import ARTIFACTS
from ...config.settings import SETTINGS, read
from ...gpu.slices.ownership import may_retry, one_of_several, owned_by
from ...named_tuple import NamedTuple
from ...own import faulthandler, os, own_builtins, signal, suppress
from ...protocol.descriptors import slots
from ...system.unforkable import adopt_file_locks
from . import crash_wait, titles
from .copies import Copies
from .coverage import Measuring
from .hidden_frames import Tracebacks
from .output import OutputCapture, Terminal
from .phases import GPU_FAILURES
from .relay import Relay
from .session_end import SessionEnd
from .states import Counts, StateSender, count_reruns
from .tree import DUMP_SIGNAL
from .wide_fixtures import WideFixtures

if TYPE_CHECKING:
    from ...gpu.health.memory import GpuMemory
    from ...protocol.descriptors import Files
    from ...protocol.messages import Run
    from .gpu_failures import GpuFailures

own_builtins(globals())

_REPORTING_HOOKS = {
    "pytest_runtest_logstart": True,
    "pytest_runtest_logreport": False,
    "pytest_runtest_logfinish": True,
    "pytest_warning_recorded": False,
}
"""Hooks that the relay implements; whether those of plugins outside of pytest run here, too."""


GPU_MEMORY: pytest.StashKey[GpuMemory] = pytest.StashKey()
"""In ``config.stash`` of a worker that owns GPUs: whom to ask about their memory."""

SEED: pytest.StashKey[int] = pytest.StashKey()
"""In an item's stash: the seed for its next run; -1 to leave random numbers alone."""


class TestProcess(NamedTuple):
    """The plugins of a process that runs tests, or forks others that do.

    :param gpu_failures: None unless the worker owns GPUs, or errors of the network are retried.
    :param broken: why wide fixtures must not be set up, by key; the keeper adds to it.
    :param tracer: pid that may attach after a crash, or 0.
    """

    session: pytest.Session
    relay: Relay
    fixtures: WideFixtures
    output: OutputCapture
    measuring: Measuring
    states: StateSender
    session_end: SessionEnd
    reruns: Counts | None
    gpu_failures: GpuFailures | None
    broken: dict[str, str]
    tracer: int

    def enter(self, files: Files, parent: int, midway: bool = False) -> None:
        """In a new process: have a group, files and output of its own.

        :param parent: pid of the process with which it ends.
        :param midway: whether the parent has begun a test that it continues.
        """
        os.setpgid(0, 0)
        system.die_with_parent(parent)
        if self.tracer:
            system.let_attach(self.tracer)
        if midway:
            self.output.copy_inherited(files)
        files.install()
        self.output.enter_process(midway)
        self.session_end.enter_process()
        adopt_file_locks()

    def before_test(self, item: pytest.Item, order: Run) -> None:
        """Tell all who need it what the order says of a test."""
        if order.tests_failed >= 0:
            item.session.testsfailed = order.tests_failed
        pytest_nodes.set_location(item, order.location)
        titles.runs(item.nodeid)
        item.stash[ARTIFACTS] = order.artifacts
        item.stash[SEED] = order.seed
        if self.reruns is not None:
            self.reruns.begin(order.attempts, order.suite_reruns)


def equip(session: pytest.Session, coverage: Any | None, waits: bool) -> TestProcess:
    """Make this process a test process: register the plugins, and enable the fault handler.

    :param coverage: see :class:`Measuring`.
    :param waits: see :func:`write_stacks_of_deaths`.
    """
    config = session.config
    titles.prepare(config)
    broken: dict[str, str] = {}
    gpu_failures = _gpu_failures(config)
    relay = Relay(session, may_retry=gpu_failures is not None and may_retry(config))
    settings = config.stash.get(SETTINGS, None)
    fixtures = WideFixtures(
        session, relay, broken, settings is not None and settings.start_method == "auto",
        gpu_failures,
    )  # fmt: skip
    output = OutputCapture(config)
    relay.on_phase, relay.on_phase_end = output.enter_phase, output.leave_phase
    plugins = config.pluginmanager
    for name, plugin in (
        ("fkit-relay", relay),
        ("fkit-wide", fixtures),
        ("fkit-output", output),
        ("fkit-copies", Copies(relay)),
        ("fkit-tracebacks", Tracebacks()),
    ):
        plugins.register(plugin, name)
    if gpu_failures is not None:
        plugins.register(gpu_failures, GPU_FAILURES)
    _silence(session, relay)
    report_each_test()
    pytest_junit.watch_junit_fixtures(config, relay.junit_record)
    Terminal(config, relay)
    write_stacks_of_deaths(waits)
    pytest_hooks.note_implementers(config)
    return TestProcess(
        session,
        relay,
        fixtures,
        output,
        Measuring(relay, coverage),
        StateSender(relay, config),
        SessionEnd(session, relay),
        count_reruns(config),
        gpu_failures,
        broken,
        config.stash.get(crash_wait.TRACER, 0),
    )


def _silence(session: pytest.Session, relay: Relay) -> None:
    """Leave reporters and debuggers to the worker."""
    config = session.config
    logging = config.pluginmanager.getplugin("logging-plugin")
    keep = relay, session, logging, *pytest_hooks.plugins_that_collect_in_tests(config)
    for hook, foreign in _REPORTING_HOOKS.items():
        pytest_hooks.silence_hook(config, hook, keep, foreign)
    pytest_hooks.silence_pytest_forked(config)
    pytest_session.replace_debugger(_no_debugger)


def _gpu_failures(config: pytest.Config) -> GpuFailures | None:
    gpus = owned_by(config) is not None
    # Fresh interpreters have no settings, but the options.
    network = may_retry(config) and read(config, "fkit_network_retries") > 0
    machines = one_of_several(config)
    if not (gpus or network or machines):
        return None
    from .gpu_failures import GpuFailures

    return GpuFailures(config, gpus, network, machines)


def write_stacks_of_deaths(waits: bool) -> None:
    """Have faulthandler write stacks to the file in which the keeper looks for them.

    :param waits: whether a thread that crashed waits for the keeper to look at its native stack.
    """
    if waits:
        crash_wait.install()
    # Each test process installs a file of its own under this descriptor.
    faulthandler.enable(file=slots.dump)
    faulthandler.register(DUMP_SIGNAL, file=slots.dump, all_threads=True)
    faulthandler.register(signal.SIGTERM, file=slots.dump, all_threads=True, chain=True)


def _no_debugger(*args: object, **kwargs: object) -> None:
    del args, kwargs
    __tracebackhide__ = True
    pytest.fail(
        "no debugger here: run it with -n0 --pdb, which turns isolation off "
        "(a test's own process has no terminal)"
    )


def plant(item: pytest.Item) -> None:
    """Seed what is imported, in the process that is to run the test; a suite may do it again.

    Forked repetitions of a test would all begin with the same state.
    """
    seed = item.stash.get(SEED, -1)
    if seed < 0:
        return
    # pytest-randomly seeds before each phase, always the same, and all libraries that it knows.
    if hasattr(item.config.option, "randomly_seed"):
        item.config.option.randomly_seed = seed
    for name, function in (
        ("random", "seed"), ("numpy.random", "seed"), ("torch", "manual_seed"),
    ):  # fmt: skip
        with suppress(Exception):  # a suite may have replaced what is there
            module = cast("Any", sys.modules.get(name))
            if module is not None:
                getattr(module, function)(seed)
