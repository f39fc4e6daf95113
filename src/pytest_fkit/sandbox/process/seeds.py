"""The random numbers of a repetition: forked ones would all begin with the same state."""

from __future__ import annotations

import sys
from typing import Any, cast

import pytest

from ...own import own_builtins, suppress

own_builtins(globals())

SEED: pytest.StashKey[int] = pytest.StashKey()
"""Of the test that an item runs next, in its stash; -1 to leave random numbers alone."""


def plant(item: pytest.Item) -> None:
    """Seed what is imported, in the process that is to run the test; a suite may do it again."""
    seed = item.stash.get(SEED, -1)
    if seed < 0:
        return
    # pytest-randomly seeds before each phase, always the same, and all libraries that it knows.
    if hasattr(item.config.option, "randomly_seed"):
        item.config.option.randomly_seed = seed
    for name, function in (
        ("random", "seed"), ("numpy.random", "seed"), ("torch", "manual_seed"),
    ):  # fmt: skip
        with suppress(Exception):  # a suite may have replaced what is there
            module = cast("Any", sys.modules.get(name))
            if module is not None:
                getattr(module, function)(seed)
