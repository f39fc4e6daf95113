"""The probes of a worker: which answer counts, and what ECC errors say that came in between."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any, Callable

import pytest

from fleet import Behaviour, Gpu, compiler, nvidia
from pytest_fkit.gpu.health.probe import Health
from pytest_fkit.gpu.machine import ROOT
from pytest_fkit.gpu.slices.ownership import Owned
from pytest_fkit.worker.probing import Probing, new_errors

MakeProbing = Callable[..., Probing]

pytestmark = pytest.mark.skipif(
    not compiler() or not sys.platform.startswith("linux"), reason="needs a C compiler and Linux"
)


@pytest.fixture
def probing(fleet: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> MakeProbing:
    """Makes a worker's probes, on a machine with these GPUs, of which it owns 1 and 0."""

    def make(gpus: list[Gpu], **more: Any) -> Probing:
        for name, text in fleet(gpus, **more).items():
            monkeypatch.setenv(name, text)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")  # a conftest.py has been at it
        masks = {"CUDA_VISIBLE_DEVICES": "1,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        return Probing(Owned(0, ("1", "0"), masks, "nvidia"), "gw0", print)

    return make


def _happens(old: str, new: str) -> None:
    """Something happens to the machine."""
    path = Path(os.environ[ROOT], "fleet.json")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_first_answer_stays_and_later_ones_are_new(probing: MakeProbing) -> None:
    probes = probing(nvidia(2, states={0: "sick"}))
    first = probes.first()
    assert first.state == "sick"
    _happens('"sick"', '"healthy"')
    assert probes.first() is first
    assert probes.again() == probes.again() == Health("healthy")
    _happens('"healthy"', '"lost"')
    assert probes.again().state == "sick"


def test_ecc_errors_are_sick_if_they_are_new(probing: MakeProbing) -> None:
    gpus = nvidia(2, ecc={1: 3})
    probes = probing(gpus)
    assert probes.first() == probes.again() == Health("healthy")
    _happens('"ecc": 3', '"ecc": 5')
    assert probes.again() == Health("sick", f"{gpus[1].pci}: 2 new uncorrected ECC errors")
    assert probes.again() == Health("healthy")


def test_errors_since_the_last_probe() -> None:
    assert new_errors({}, {"a": 3}) == ""
    assert new_errors({"a": 3, "b": 0}, {"a": 3}) == ""
    assert new_errors({"a": 3, "b": 0}, {"a": 0, "b": 0}) == ""  # the driver was loaded anew
    assert new_errors({"a": 3, "b": 0}, {"a": 5, "b": 1}) == (
        "a: 2 new uncorrected ECC errors; b: 1 new uncorrected ECC error"
    )


def test_who_waits_can_be_released(probing: MakeProbing) -> None:
    probes = probing(nvidia(2), behaviours={"libcuda.so.1": Behaviour(seconds=600)})
    timer = threading.Timer(0.5, probes.stop)
    timer.start()
    try:
        assert probes.first() == Health("unknown", "was ended by SIGKILL")
    finally:
        timer.join()


def test_nothing_is_left_of_a_probe_that_nobody_waited_for(probing: MakeProbing) -> None:
    probes = probing(nvidia(2), behaviours={"libcuda.so.1": Behaviour(seconds=600, stubborn=True)})
    probes.pytest_unconfigure()
    assert probes.first() == Health("unknown", "was ended by SIGKILL")
    probes.pytest_unconfigure()
    probes.stop()


@pytest.mark.parametrize(
    ("ids", "shown"), [((), 0), (("3",), 1), (("2", "3"), 2), (("MIG-1", "MIG-2"), 1)]
)
def test_what_a_process_sees_of_a_slice(ids: tuple[str, ...], shown: int) -> None:
    assert Owned(0, ids).shown == shown
