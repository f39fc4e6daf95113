"""Items and the nodes above them; private names of pytest's nodes.

What is above a test is asked without its methods: plugins override ``getparent`` and the like.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Iterator

import _pytest.runner
import pytest

from ..own import copy, os, own_builtins

if TYPE_CHECKING:
    from _pytest.nodes import Node

own_builtins(globals())


def lineage(item: Node) -> Iterator[Node]:
    """The item, and the nodes above it up to the session."""
    node: Node | None = item
    while node is not None:
        yield node
        node = node.parent


def ancestor(item: pytest.Item, kind: type[Any]) -> Any | None:
    """The closest node of this class, which may be the item itself."""
    return next((node for node in lineage(item) if isinstance(node, kind)), None)


def unique_id(node: Node) -> str:
    """The node id, after its path if that is not in it.

    Files outside of the root directory that the command line names have an empty node id, and tests
    in them may have the same ones.
    """
    nodeid = node.nodeid
    if nodeid.startswith("::") or (not nodeid and isinstance(node, pytest.File)):
        return f"{node.path}{nodeid}"
    return nodeid


def marks(item: Node) -> Iterator[tuple[Node, pytest.Mark]]:
    """The marks with the nodes that have them, the closest first."""
    for node in lineage(item):
        for mark in node.own_markers:
            yield node, mark


def closest_mark(item: pytest.Item, name: str) -> pytest.Mark | None:
    return next((mark for _, mark in marks(item) if mark.name == name), None)


def distinct(item: pytest.Item) -> pytest.Item:
    """A stand-in for an item that is followed by itself: pytest would not tear it down."""
    return copy.copy(item)


def forget_instance(item: pytest.Item) -> None:
    """Have the next run of a method, in this process, get another instance of its class."""
    if isinstance(item.parent, pytest.Class) and isinstance(item, pytest.Function):
        vars(item).pop("_obj", None)
        vars(item).pop("_instance", None)


def set_nodeid(item: pytest.Item, nodeid: str) -> None:
    """Have `item` bear this node id."""
    node: Any = item
    if hasattr(node, "_id"):
        node._id = type(node._id).parse(nodeid)
    else:
        node._nodeid = nodeid


def set_location(item: pytest.Item, location: tuple[str, int | None, str]) -> None:
    """Give `item` the value of its cached property ``location``."""
    if isinstance(getattr(type(item), "location", None), functools.cached_property):
        item.__dict__["location"] = location


def set_current_test(item: pytest.Item, when: Any) -> None:
    """Have ``PYTEST_CURRENT_TEST`` name a phase of the item, or nothing.

    :param when: None for nothing.
    """
    if when is not None or "PYTEST_CURRENT_TEST" in os.environ:
        _pytest.runner._update_current_test_var(item, when)


def starts_threads(item: pytest.Item) -> bool:
    """Whether pytest or pytest-timeout starts a thread that ends a test in time."""
    config = item.config
    has_timeout = config.pluginmanager.hasplugin("faulthandler")
    if has_timeout and float(config.getini("faulthandler_timeout") or 0.0) > 0:
        return True
    method = getattr(config, "_env_timeout_method", "")  # pytest-timeout's
    if method == "":
        return False
    marks = [mark.kwargs.get("method") for mark in item.iter_markers("timeout")]
    return "thread" in (method, *marks)
