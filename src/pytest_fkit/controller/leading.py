"""The plugins of a controller that has workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

import pytest

from ..own import own_builtins
from ..settings import KEY
from . import gpus
from .flaky import FailOnFlaky
from .gateways import Gateways
from .nodes import Nodes
from .reporting import Reporting
from .unreported import Unreported

if TYPE_CHECKING:
    from ..journal.recorder import Recorder
    from .resume import Resuming

own_builtins(globals())


def lead(
    config: pytest.Config,
    reporting: Reporting,
    recorder: Recorder | None,
    resuming: Resuming | None,
    show: Callable[[str], None],
) -> None:
    """Register them.

    :param recorder: hears of all tests, if there is one.
    :param resuming: reports verdicts of the run that is gone on with, if there is one.
    :param show: writes a line to the terminal.
    """
    plugins = config.pluginmanager
    found = config.stash.get(gpus.KEY, None)
    # None where there are not going to be workers.
    gateways = None if found is None else Gateways(config, found, show)
    nodes = Nodes(config, config.stash[KEY], show, recorder, resuming, gateways)
    plugins.register(Unreported(config, nodes.unrunnable), "fkit-unreported")
    plugins.register(nodes, "fkit-nodes")
    reporting.retired = nodes.rerouting.retired
    if gateways is not None:
        plugins.register(gateways, "fkit-gateways")
    if config.getoption("fail_on_flaky", False):
        plugins.register(FailOnFlaky(), "fkit-flaky")
