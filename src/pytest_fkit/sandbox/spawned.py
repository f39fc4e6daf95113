"""The main program of a host that is a fresh interpreter."""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
from typing import Any

import pytest

from .. import private_api
from .coverage import running_coverage
from .descriptors import DUMP, ERR, OUT, SLOTS, Link
from .equipment import equip
from .host import Host


def main(spec: dict[str, Any], descriptor: int) -> None:
    """Collect the module and run its tests as the keeper says.

    :param spec: see spawn.py.
    :param descriptor: of the link to the keeper.
    """
    for inherited in (*SLOTS, descriptor):
        os.set_inheritable(inherited, False)
    faulthandler.enable(file=DUMP)
    # What pytest prints here is seen only if it fails before the first test.
    os.dup2(OUT, 1)
    os.dup2(ERR, 2)
    link = Link(socket.socket(fileno=descriptor))
    config = private_api.worker_config(spec["args"], spec["workerinput"], spec["basetemp"])
    config.pluginmanager.register(Spawned(link, spec["positions"]), "fkit-spawned")
    sys.exit(int(config.hook.pytest_cmdline_main(config=config)))


class Spawned:
    """Plugin of such an interpreter: its test loop.

    :param positions: of the module's tests among the worker's, by node id.
    """

    def __init__(self, link: Link, positions: dict[str, int]) -> None:
        self._link = link
        self._positions = positions

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run tests until the keeper says that there are no more."""
        items = {
            self._positions[item.nodeid]: item
            for item in session.items
            if item.nodeid in self._positions
        }
        os.ftruncate(OUT, 0)
        Host(session, equip(session, running_coverage()), items.get).serve_here(self._link)
        return True
