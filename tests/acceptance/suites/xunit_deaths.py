"""setup_module and teardown_module that kill. The file is copied into inner runs."""

from __future__ import annotations

import os
import signal


def note(name: str) -> None:
    with open("noted", "a") as file:
        file.write(f"{name}\n")


def setup_module() -> None:
    note("setup_module")
    os.kill(os.getpid(), signal.SIGKILL)


def test_setup_module_1() -> None:
    note("must not run")


def test_setup_module_2() -> None:
    note("must not run")
