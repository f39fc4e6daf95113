"""Where the processes of a run find what the readers of Xids write down, see xid_file.py."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from ...own import own_builtins

own_builtins(globals())

TOLD = "fkit_xids"
"""Where a worker is told the path, in ``config.workerinput``."""


class XidsHere(NamedTuple):
    """The file, in the process that made it.

    :param path: by which others open it.
    """

    path: str
    descriptor: int


KEY: pytest.StashKey[XidsHere] = pytest.StashKey()
"""Where it is, in ``config.stash`` of the process that made it."""
