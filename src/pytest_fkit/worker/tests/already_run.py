"""Tests that an earlier run has a verdict on are not run."""

from __future__ import annotations

from collections import Counter
from typing import Callable, Generator, Mapping

import pytest

from ...own import own_builtins

own_builtins(globals())


class Resumed:
    """Plugin of every process that collects.

    :param done: how many verdicts there are, by node id.
    :param tell: called with the node ids of the tests that are left out, and of the others.
    """

    def __init__(
        self, done: Mapping[str, int], tell: Callable[[list[str], list[str]], object]
    ) -> None:
        self._done = done
        self._tell = tell

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        """Leave them out, when all other plugins have chosen, and named them."""
        result = yield
        left = Counter(self._done)
        found: list[str] = []
        rest: list[pytest.Item] = []
        for item in items:
            if left[item.nodeid] > 0:
                left[item.nodeid] -= 1
                found.append(item.nodeid)
            else:
                rest.append(item)
        items[:] = rest
        self._tell(found, [item.nodeid for item in rest])
        return result
