"""What is above a test, whatever its class makes of the methods that say so.

Plugins override ``getparent`` and the like to answer for what they need themselves.
"""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from ..own import own_builtins

own_builtins(globals())


def lineage(item: pytest.Item | pytest.Collector) -> Iterator[Any]:
    """The item, and the nodes above it up to the session."""
    node: Any = item
    while node is not None:
        yield node
        node = node.parent


def ancestor(item: pytest.Item, kind: type[Any]) -> Any | None:
    """The closest node of this class, which may be the item itself."""
    return next((node for node in lineage(item) if isinstance(node, kind)), None)


def marks(item: pytest.Item | pytest.Collector) -> Iterator[tuple[Any, pytest.Mark]]:
    """The marks with the nodes that have them, the closest first."""
    for node in lineage(item):
        for mark in node.own_markers:
            yield node, mark


def closest_mark(item: pytest.Item, name: str) -> pytest.Mark | None:
    """The closest mark of this name."""
    return next((mark for _, mark in marks(item) if mark.name == name), None)
