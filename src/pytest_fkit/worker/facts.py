"""What a worker tells the controller of the tests that it collected."""

from __future__ import annotations

import marshal

import pytest

from .. import private_api
from ..shares import SPAWNED
from ..wire import MARSHAL_VERSION
from .orders import Requests


def facts(session: pytest.Session, requests: Requests) -> bytes:
    """By position, the name of those tests with which one has something in common, or ""."""
    groups = [_group(item, requests.share(number)) for number, item in enumerate(session.items)]
    return marshal.dumps(groups, MARSHAL_VERSION)


def _group(item: pytest.Item, share: str) -> str:
    if share.startswith(("class:", "module:", SPAWNED)):
        return share
    scopes = private_api.narrower_scopes(item)
    if not scopes:
        return ""
    kind = pytest.Package if "package" in scopes else pytest.File
    node = item.getparent(kind)
    return node.nodeid if node is not None else ""
