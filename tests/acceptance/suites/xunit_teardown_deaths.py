"""A teardown_module that kills. The file is copied into inner runs."""

from __future__ import annotations

import os


def teardown_module() -> None:
    with open("noted", "a") as file:
        file.write("teardown_module\n")
    os.abort()  # here: teardown_module


def test_teardown_module_1() -> None:
    pass


def test_teardown_module_2() -> None:
    pass
