"""Titles of test processes, which ps(1) and nvidia-smi show, in the form that xdist's workers have.

By setproctitle, where that is installed and there are workers: without, plain pytest has the
command line that it was started with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

import pytest

from ...own import own_builtins

if TYPE_CHECKING:
    _set: Callable[[str], None] | None
else:
    try:
        from setproctitle import setproctitle as _set
    except Exception:  # noqa: BLE001 (of other people's code: a title is not worth an error)
        _set = None

own_builtins(globals())


def prepare(config: pytest.Config) -> None:
    """Before any fork: make room for titles, which takes longer than to set one."""
    global _set
    if not hasattr(config, "workerinput"):
        _set = None
    idle()


def runs(nodeid: str) -> None:
    """Say which test runs in this process."""
    if _set is not None:
        _show(f"[pytest-fkit running] {nodeid}")


def idle() -> None:
    """Say that none does."""
    if _set is not None:
        _show("[pytest-fkit idle]")


def _show(title: str) -> None:
    assert _set is not None
    try:
        _set(title)
    except Exception:  # noqa: BLE001 (of a node id with surrogates, for example)
        return
