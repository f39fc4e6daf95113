"""What all tests share."""

from __future__ import annotations

import signal
from typing import Any, Callable

import pytest
from comparing import suite

import fleet as fleets

__all__ = ["suite"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell starts jobs in the background; what tests start is to be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def fleet(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, str]]:
    """Makes machines with GPUs, given what :func:`fleet.describe` takes.

    What is returned are the environment variables with which an inner run is on that machine.
    """
    for name in fleets.MASKS:
        monkeypatch.delenv(name, raising=False)
    cache = tmp_path_factory.getbasetemp() / "fleet-libraries"

    def make(*groups: list[fleets.Gpu], **more: Any) -> dict[str, str]:
        root = tmp_path_factory.mktemp("fleet")
        return fleets.environment(fleets.build(root, fleets.describe(*groups, **more), cache))

    return make
