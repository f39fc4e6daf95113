"""From a fork of the worker to a keeper, and what every test process inherits from it."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from typing import Any, NoReturn

import pytest

from .. import private_api, system
from ..messages import Broken
from .copies import Copies
from .coverage import Measuring
from .descriptors import DUMP, Link
from .fixtures import WideFixtures
from .host import Host
from .keeper import DUMP_SIGNAL, Keeper
from .output import CaptureFixtures
from .relay import Relay

_REPORTING_HOOKS = (
    "pytest_runtest_logstart",
    "pytest_runtest_logreport",
    "pytest_runtest_logfinish",
    "pytest_warning_recorded",
)


def keeper_main(
    session: pytest.Session,
    link: Link,
    worker_descriptors: list[int],
    controller: int,
    coverage: Any | None,
) -> NoReturn:
    """Called in the new process, in the worker's main thread, after collection.

    :param worker_descriptors: what the worker and nobody else may use.
    :param controller: pid of the controller on this machine, or 0.
    :param coverage: see :func:`pytest_fkit.sandbox.coverage.running_coverage`.
    """
    try:
        os.setsid()  # neither the terminal's Ctrl-C nor its hang-up is for us
        system.become_subreaper()
        _hand_back(worker_descriptors)
        keeper = _prepare(session, link, controller, coverage)
    except BaseException:  # noqa: BLE001 (nothing may return into the worker's code)
        sys.excepthook(*sys.exc_info())
        os._exit(70)
    keeper.main()


def _hand_back(descriptors: list[int]) -> None:
    # Not by closing the Python objects: the locks they hold belong to a thread that is not here.
    # And not by closing the numbers: these objects would close what comes to have them.
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)


def _prepare(session: pytest.Session, link: Link, controller: int, coverage: Any | None) -> Keeper:
    config = session.config
    broken: dict[str, str] = {}
    relay = Relay(session)
    fixtures = WideFixtures(session, relay, broken)
    plugins = config.pluginmanager
    for name, plugin in (
        ("fkit-relay", relay),
        ("fkit-wide", fixtures),
        ("fkit-capture", CaptureFixtures()),
        ("fkit-copies", Copies(relay)),
    ):
        plugins.register(plugin, name)
    keep = (relay, session, plugins.getplugin("logging-plugin"))
    for hook in _REPORTING_HOOKS:
        private_api.silence_hook(config, hook, keep)
    private_api.replace_debugger(_no_debugger)
    log = private_api.junit_log(config)
    if log is not None:
        private_api.watch_junit_records(log, relay.junit_record)
    # The descriptor is each test process's own file of that number.
    faulthandler.enable(file=DUMP)
    faulthandler.register(DUMP_SIGNAL, file=DUMP, all_threads=True)
    faulthandler.register(signal.SIGTERM, file=DUMP, all_threads=True, chain=True)
    host = Host(session, relay, fixtures, Measuring(relay, coverage))

    def remember(message: Broken) -> None:
        broken[message.key] = message.text

    stream = config.getoption("capture") == "no" and hasattr(config, "workerinput")
    return Keeper(link, host.main, remember, stream, controller if system.PORTABLE else 0)


def _no_debugger(*args: Any, **kwargs: Any) -> None:
    del args, kwargs
    __tracebackhide__ = True
    pytest.fail(
        "the debugger can't be used in a test's own process; run the test with: "
        "pytest -n0 --fkit --pdb (which turns isolation off), or without --fkit"
    )
