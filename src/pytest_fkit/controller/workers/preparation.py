"""Before tests are distributed: whether workers collected the same, and how long tests took."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Collection, Mapping, Sequence

import pytest

from ...compat import xdist_controller
from ...own import own_builtins
from ..schedule.machines import told_gpus

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

own_builtins(globals())

MODES = ("load", "worksteal", "loadscope", "loadfile", "loadgroup")
"""The modes of ``--dist`` that are served here."""

_CACHE_KEY = "fkit/durations"

_WORTH = 0.05
"""Shortest duration, in seconds, that is remembered: below it all tests count the same."""


def dispatches(config: pytest.Config) -> bool:
    """Whether our scheduler serves the run: not if a plugin or conftest.py brings its own."""
    return config.getoption("dist") in MODES and not xdist_controller.other_schedulers(config)


def collected_alike(
    config: pytest.Config,
    ids: Mapping[WorkerController, Sequence[str]],
    doubtful: Collection[WorkerController],
    show: Callable[[str], None],
) -> bool:
    """Whether workers with equal GPUs collected the same; if not, report it as xdist does.

    :param doubtful: workers whose GPUs are in doubt, which are compared with none.
    """
    equal: dict[tuple[object, ...], dict[WorkerController, Sequence[str]]] = {}
    for node, each in ids.items():
        owned = told_gpus(node)
        key = (node,) if node in doubtful else (len(owned.get("ids", ())), owned.get("vendor"))
        equal.setdefault(key, {})[node] = each
    if not all(xdist_controller.same_collections(config, each) for each in equal.values()):
        return False
    first = next(iter(ids.values()))
    if any(each != first for each in ids.values()):
        sizes = {node.gateway.id: len(each) for node, each in ids.items()}
        text = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        show(
            f"fkit: workers whose GPUs differ collected different tests ({text}); "
            "each test runs where it was collected"
        )
    return True


class Durations:
    """How long tests took, from one run to the next, in pytest's cache.

    Where that knows nothing, pytest-split's file counts.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._cache: Any = getattr(config, "cache", None)
        kept = self._cache.get(_CACHE_KEY, None) if self._cache is not None else None
        self._known = _seconds(kept)
        self._split = _of_pytest_split(config)
        self._any = isinstance(kept, dict)
        self._found: dict[str, float] = {}

    def expected(self, nodeids: Sequence[str]) -> list[float | None]:
        """Seconds for each test, None where unknown."""
        if not self._any and not self._split:
            return [None] * len(nodeids)
        known, split = self._known, self._split
        return [known.get(nodeid, split.get(nodeid)) for nodeid in nodeids]

    def found(self, nodeid: str, seconds: float) -> None:
        self._found[nodeid] = seconds

    def forget(self, nodeid: str) -> None:
        """The test died, or was tried again, so that what was found says nothing."""
        self._found.pop(nodeid, None)

    def keep(self) -> None:
        if self._cache is None or not self._found:
            return
        merged = {**self._known, **self._found}
        worth = {nodeid: round(took, 3) for nodeid, took in merged.items() if took >= _WORTH}
        self._cache.set(_CACHE_KEY, worth)


def _of_pytest_split(config: pytest.Config) -> dict[str, float]:
    """The file that pytest-split's ``--store-durations`` writes: node ids and seconds, in JSON."""
    path = config.getoption("durations_path", None) or config.rootpath / ".test_durations"
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return _seconds(found)


def _seconds(found: object) -> dict[str, float]:
    """The durations in a file's content, which anybody may have written."""
    if not isinstance(found, dict):
        return {}
    return {
        name: took
        for name, took in found.items()
        if isinstance(took, (int, float)) and 0 <= took < float("inf")
    }
