"""What a worker tells the controller of the tests that it collected."""

from __future__ import annotations

from typing import Any

import pytest

from ...compat import pytest_fixtures
from ...compat.pytest_nodes import ancestor
from ...own import own_builtins
from ...protocol.border import Facts
from ...protocol.needs import Needs
from ...protocol.plain_values import carriable
from ...protocol.process_names import SPAWNED
from ..gpus.declared_needs import needs_to_wire
from .orders import Requests

own_builtins(globals())


def facts(session: pytest.Session, requests: Requests, grouped: bool) -> Facts:
    """What the controller is told.

    :param grouped: whether it asks for the names of what tests have in common.
    """
    groups: list[str] = []
    if grouped:
        groups = [_group(item, requests.share(number)) for number, item in enumerate(session.items)]
    nothing = Needs().to_wire()
    needs: dict[int, Any] = {
        position: carriable(each)
        for position, each in enumerate(needs_to_wire(session.items))
        if each != nothing
    }
    return Facts(tuple(groups), needs, requests.connected)


def _group(item: pytest.Item, share: str) -> str:
    if share.startswith(("class:", "module:", SPAWNED)):
        return share
    scopes = pytest_fixtures.narrower_scopes(item)
    if not scopes and not pytest_fixtures.has_setup_of_file(item):
        return ""
    kind: type[pytest.Collector] = pytest.Package if "package" in scopes else pytest.File
    node = ancestor(item, kind)
    return node.nodeid if node is not None else ""
