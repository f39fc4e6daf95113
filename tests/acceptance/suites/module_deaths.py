"""A module whose setup passes and whose ends kill: copied into inner runs as the last module."""

from __future__ import annotations

import ctypes
from typing import Iterator

import pytest


def note(name: str) -> None:
    with open("noted", "a") as file:
        file.write(f"{name}\n")


@pytest.fixture(scope="session")
def session_teardown() -> Iterator[None]:
    note("session_teardown is set up")
    yield
    note("session_teardown")
    ctypes.string_at(0)  # here: session_teardown


@pytest.fixture(scope="module")
def module_teardown() -> Iterator[None]:
    yield
    note("module_teardown")


def teardown_module() -> None:
    note("teardown_module")


def test_last_1(session_teardown: None, module_teardown: None) -> None:
    pass


def test_last_2(session_teardown: None, module_teardown: None) -> None:
    pass
