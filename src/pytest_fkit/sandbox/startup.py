"""Turns a fork of the worker into a keeper, with all that test processes inherit from it."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import pytest

from .. import system
from ..config.settings import SETTINGS, Settings
from ..own import gc, os, own_builtins
from ..protocol import repetitions
from ..protocol.channels import Link
from ..protocol.messages import Broken
from ..system import cores
from ..system.limits import MEMORY, room
from ..system.unforkable import in_bad_fork
from .host.host import Host
from .keeper.debugger import find_tools, is_wanted
from .keeper.jobs import HostConnection, HostStart
from .keeper.keeper import Keeper
from .keeper.kept_cores import Keeping
from .keeper.spawn import exec_host
from .process import crash_wait
from .process.output import streams
from .process.relay import FAILED
from .process.steps import Role
from .process.test_process import GPU_MEMORY, TestProcess, equip, write_stacks_of_deaths

own_builtins(globals())


def keeper_role(
    session: pytest.Session,
    link: Link,
    worker_descriptors: list[int],
    controller: int,
    coverage: Any | None,
) -> Role:
    """The role of the keeper, which is forked in the worker's main thread, after collection.

    :param worker_descriptors: descriptors that only the worker may use.
    :param controller: pid of the controller on this machine, or 0.
    :param coverage: see :func:`pytest_fkit.sandbox.process.coverage.running_coverage`.
    """
    try:
        os.setsid()  # the terminal's SIGINT and SIGHUP must not reach the keeper
        system.become_subreaper()
        _replace_by_devnull(worker_descriptors)
        with room(*MEMORY):
            keeper = _prepare(session, link, controller, coverage)
    except BaseException:  # noqa: BLE001 (it is the end of the process, whatever it was)
        sys.excepthook(*sys.exc_info())
        return FAILED
    return (yield from keeper.main())


def _replace_by_devnull(descriptors: list[int]) -> None:
    # Closing the Python objects could deadlock: a thread that this fork lacks may hold their locks.
    # Closing the numbers would let those objects close whatever reuses the numbers later.
    with room():
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in descriptors:
            os.dup2(null, descriptor, inheritable=False)
        os.close(null)


def _prepare(session: pytest.Session, link: Link, controller: int, coverage: Any | None) -> Keeper:
    config = session.config
    settings = config.stash.get(SETTINGS, None)
    tools = find_tools() if is_wanted(settings) else None
    keeping = _keeping(config, settings)
    waits = config.stash[crash_wait.WAITS] = tools is not None or keeping is not None
    if waits and system.must_let_attach():
        config.stash[crash_wait.TRACER] = os.getpid()
    process = equip(session, coverage, waits=False)  # who would look at the keeper?
    items = session.items

    def item_at(position: int) -> pytest.Item | None:
        return items[repetitions.test_of(position)] if position >= 0 else None

    starts = _Starts(session, process, Host(process, item_at), waits, keeping is not None)
    # Move all objects to the oldest generation: otherwise the first collection in each child would
    # traverse the younger ones, and copy their pages.
    gc.freeze()
    gc.unfreeze()
    return Keeper(
        link,
        starts,
        streams(config),
        unsafe=in_bad_fork() if process.fixtures.watch.on else "",
        controller=controller if system.PORTABLE else 0,
        memory=config.stash.get(GPU_MEMORY, None),
        tools=tools,
        keeping=keeping,
    )


class _Starts:
    """How a new process becomes a host, see :class:`.keeper.Starts`.

    :param host: that a fork of the keeper becomes.
    :param waits: whether crashed threads wait.
    :param keeps_cores: whether cores are kept.
    """

    def __init__(
        self,
        session: pytest.Session,
        process: TestProcess,
        host: Host,
        waits: bool,
        keeps_cores: bool,
    ) -> None:
        self._session = session
        self._broken = process.broken
        self._host = host
        self._waits = waits
        self._keeps_cores = keeps_cores

    def fork(self, start: HostStart, connection: HostConnection, keeper: int) -> Role:
        self._begin(start)
        if self._waits:
            write_stacks_of_deaths(waits=True)
        return (yield from self._host.main(*connection, keeper))

    def spawn(self, start: HostStart, connection: HostConnection, keeper: int) -> NoReturn:
        self._begin(start)
        exec_host(self._session, start, connection, keeper)

    def _begin(self, start: HostStart) -> None:
        os.environ.update(start.key.environ)
        if self._keeps_cores and not start.key.wrapper:
            cores.allow()

    def remember(self, message: Broken) -> None:
        self._broken[message.key] = message.text


_THIS_RUN = os.urandom(8).hex()
"""At ``-n0``, where xdist has no name for it."""


def _keeping(config: pytest.Config, settings: Settings | None) -> Keeping | None:
    if settings is None or settings.cores is None or not crash_wait.SUPPORTED:
        return None
    told: dict[str, Any] = getattr(config, "workerinput", {})
    return Keeping(str(settings.cores), settings.keep_cores, told.get("testrunuid", _THIS_RUN))
