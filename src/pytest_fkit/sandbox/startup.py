"""From a fork of the worker to a keeper, and what every test process inherits from it."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import pytest

from .. import system
from ..gpu.slices.ownership import MEMORY
from ..own import gc, os, own_builtins
from ..protocol.channels import Link
from ..protocol.messages import Broken
from ..system.limits import room
from ..system.unforkable import in_bad_fork
from .host.host import Host
from .keeper.jobs import Start, Ties
from .keeper.keeper import Keeper, Ways
from .keeper.spawn import exec_host
from .process.output import streams
from .process.steps import FAILED, Role
from .process.test_process import equip

own_builtins(globals())


def keeper_role(
    session: pytest.Session,
    link: Link,
    worker_descriptors: list[int],
    controller: int,
    coverage: Any | None,
) -> Role:
    """What a keeper does, forked in the worker's main thread, after collection.

    :param worker_descriptors: what the worker and nobody else may use.
    :param controller: pid of the controller on this machine, or 0.
    :param coverage: see :func:`pytest_fkit.sandbox.process.coverage.running_coverage`.
    """
    try:
        os.setsid()  # neither the terminal's Ctrl-C nor its hang-up is for us
        system.become_subreaper()
        _hand_back(worker_descriptors)
        keeper = _prepare(session, link, controller, coverage)
    except BaseException:  # noqa: BLE001 (it is the end of the process, whatever it was)
        sys.excepthook(*sys.exc_info())
        return FAILED
    return (yield from keeper.main())


def _hand_back(descriptors: list[int]) -> None:
    # Not by closing the Python objects: the locks they hold belong to a thread that is not here.
    # And not by closing the numbers: these objects would close what comes to have them.
    with room():
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in descriptors:
            os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)


def _prepare(session: pytest.Session, link: Link, controller: int, coverage: Any | None) -> Keeper:
    config = session.config
    process = equip(session, coverage)
    items = session.items

    def item_at(position: int) -> pytest.Item | None:
        return items[position] if position >= 0 else None

    host = Host(session, process, item_at)

    def host_main(start: Start, ties: Ties, keeper: int) -> Role:
        os.environ.update(start.environ)
        return (yield from host.main(*ties, keeper))

    def spawn(start: Start, ties: Ties, keeper: int) -> NoReturn:
        os.environ.update(start.environ)
        exec_host(session, start, ties, keeper)

    def remember(message: Broken) -> None:
        process.broken[message.key] = message.text

    # What is there now counts as old: otherwise the first collection in each child goes over the
    # young part of it, and copies the pages.
    gc.freeze()
    gc.unfreeze()
    unsafe = in_bad_fork() if process.fixtures.watch.on else ""
    watched = controller if system.PORTABLE else 0
    memory = config.stash.get(MEMORY, None)
    return Keeper(link, Ways(host_main, spawn), remember, streams(config), unsafe, watched, memory)
