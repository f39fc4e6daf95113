"""The plugins of a controller that has workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

import pytest

from ..config.settings import KEY
from ..own import own_builtins
from .reports.flaky import FailOnFlaky
from .reports.reporting import Reporting
from .workers import gpus
from .workers.gateways import Gateways
from .workers.nodes import Nodes

if TYPE_CHECKING:
    from ..journal.recorder import Recorder
    from .reports.accounting import Accounting
    from .reports.resume import Resuming

own_builtins(globals())


def lead(
    config: pytest.Config,
    reporting: Reporting,
    recorder: Recorder | None,
    resuming: Resuming | None,
    accounting: Accounting,
    show: Callable[[str], None],
) -> None:
    """Register them.

    :param recorder: hears of all tests, if there is one.
    :param resuming: reports the verdicts of the resumed run, if there is one.
    :param accounting: counts verdicts.
    :param show: writes a line to the terminal.
    """
    plugins = config.pluginmanager
    found = config.stash.get(gpus.KEY, None)
    # None where there are not going to be workers.
    gateways = None if found is None else Gateways(config, found, show)
    nodes = Nodes(config, config.stash[KEY], show, recorder, resuming, gateways, accounting)
    plugins.register(nodes, "fkit-nodes")
    reporting.retired = nodes.rerouting.retired
    reporting.why_killed = nodes.why_killed
    if gateways is not None:
        plugins.register(gateways, "fkit-gateways")
    if config.getoption("fail_on_flaky", False):
        plugins.register(FailOnFlaky(), "fkit-flaky")
