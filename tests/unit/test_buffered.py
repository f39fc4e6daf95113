"""Which files a copy of this process could lose text of."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from pytest_fkit.system import PORTABLE, holdings
from pytest_fkit.system.unforkable import may_buffer

if PORTABLE:
    pytest.skip("files are not looked at", allow_module_level=True)


def test_only_what_may_be_buffered_does_not_survive_a_fork(tmp_path: Path) -> None:
    path = tmp_path / "log"
    before = holdings.take()
    with path.open("ab", buffering=0):
        assert holdings.take().beyond(before) == []
    handler = logging.FileHandler(path)
    try:
        assert holdings.take().beyond(before) == []
        with path.open("a"):
            [found] = holdings.take().beyond(before)
        assert found.endswith("log, open for appending, maybe with a buffer")
    finally:
        handler.close()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        assert may_buffer(descriptor)  # a C library may
    finally:
        os.close(descriptor)
