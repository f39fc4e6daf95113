"""How close GPUs are to each other, and which of them make a gang."""

from __future__ import annotations

import json
import sys
from typing import Callable, Sequence

import pytest
from test_gpu_detection import needs_nvml

from fleet import amd, connected, nvidia
from pytest_fkit.controller.schedule.gangs import choose_gang
from pytest_fkit.controller.schedule.known_workers import KnownWorker
from pytest_fkit.controller.schedule.units import Kind
from pytest_fkit.gpu.devices import (
    FAR,
    LINKED,
    ONE_SOCKET,
    Device,
    Nearness,
    from_wire,
    to_wire,
    way_between,
)
from pytest_fkit.gpu.machine import ROOT, Machine
from pytest_fkit.gpu.vendors import detection

MakeFleet = Callable[..., "dict[str, str]"]

CUBE = [(0, 3), (3, 5), (0, 5), (1, 2), (1, 4), (2, 4), (6, 7)]
"""Pairs of GPUs with links: 0, 3 and 5; 1, 2 and 4; 6 and 7."""

SOCKETS = [0, 1, 1, 0, 1, 0, 0, 1]


def _devices(
    links: Sequence[tuple[int, int]] = (), sockets: Sequence[int] = (), number: int = 8
) -> list[Device]:
    gpus = connected(nvidia(number), links, sockets)
    return [
        Device("nvidia", gpu.ordinal, pci=gpu.pci, node=gpu.numa, links=gpu.links) for gpu in gpus
    ]


def _gang(
    devices: Sequence[Device],
    gpus: int,
    each: int = 1,
    busy: Sequence[int] = (),
    unowned: Sequence[int] = (),
) -> list[str]:
    """The GPUs that a test gets.

    :param gpus: how many it needs.
    :param each: how many a worker has.
    :param busy: numbers of workers.
    """
    owned = [device.ordinal for device in devices if device.ordinal not in unowned]
    slices = [owned[start : start + each] for start in range(0, len(owned), each)]
    workers = [
        KnownWorker(f"gw{n}", n, tuple(map(str, some)), frozenset(), cpu=False, waits=n not in busy)
        for n, some in enumerate(slices)
    ]
    nearness = Nearness()
    nearness.add({str(device.ordinal): device for device in devices})
    gang = choose_gang(Kind(gpus), None, workers, map(str, unowned), nearness)
    assert gang is not None
    return list(gang.gpus)


def test_ways_between_gpus() -> None:
    one, linked, near, far = (
        Device("nvidia", 0, pci="0000:01:00.0", node=0, links=("0000:02:00.0",)),
        Device("nvidia", 1, pci="0000:02:00.0", node=1),
        Device("nvidia", 2, pci="0000:03:00.0", node=0),
        Device("nvidia", 3, pci="0000:04:00.0", node=1),
    )
    assert way_between(one, linked) == way_between(linked, one) == LINKED
    assert way_between(one, near) == ONE_SOCKET
    assert way_between(one, far) == FAR
    assert way_between(Device("nvidia", 4), Device("nvidia", 5)) is None
    assert way_between(Device("nvidia", 4), one) == FAR  # it has links, but none to that one


def test_a_gang_has_links_of_its_own_where_there_are_any() -> None:
    devices = _devices(CUBE, SOCKETS)
    assert _gang(devices, 3) == ["1", "2", "4"]
    assert _gang(devices, 3, busy=[1, 2, 4]) == ["0", "3", "5"]
    assert _gang(devices, 2, busy=[0, 1, 2, 3]) == ["6", "7"]


def test_links_are_worth_waiting_for() -> None:
    assert _gang(_devices([(0, 3)], number=4), 2, busy=[0, 3]) == ["0", "3"]


def test_a_gang_is_on_one_socket_where_that_is_all_that_is_known() -> None:
    assert _gang(_devices(sockets=SOCKETS), 4) == ["0", "3", "5", "6"]
    assert _gang(_devices(sockets=SOCKETS), 4, busy=[0]) == ["1", "2", "4", "7"]


def test_where_all_are_equally_close_those_who_have_nothing_to_do_are_taken() -> None:
    everybody = [(one, other) for one in range(8) for other in range(one)]
    assert _gang(_devices(everybody), 3, busy=[0, 2, 3, 5, 7]) == ["1", "4", "6"]
    assert _gang(_devices(everybody), 3) == ["0", "1", "2"]


def test_where_nothing_is_known_neighbours_by_number_are_taken() -> None:
    assert _gang(_devices(), 3, busy=[0, 3]) == ["4", "5", "6"]
    assert _gang(_devices(), 3, busy=[1, 3, 5, 7]) == ["0", "1", "2"]


def test_slices_are_as_close_as_their_gpus_that_are_farthest_from_each_other() -> None:
    pairs = [(0, 1), (2, 3), (4, 5), (6, 7), (0, 4), (0, 5), (1, 4), (1, 5), (0, 2), (0, 3)]
    assert _gang(_devices(pairs), 4, each=2) == ["0", "1", "4", "5"]


def test_of_those_that_nobody_owns_the_closest_are_lent() -> None:
    assert _gang(_devices([(1, 7)]), 2, unowned=[6, 7]) == ["1", "7"]


@needs_nvml
def test_nvml_knows_links_and_the_kernel_sockets(fleet: MakeFleet) -> None:
    gpus = connected(nvidia(4), [(0, 2), (1, 3)], [0, 1, 0, 1])
    found = detection.detect(30.0, Machine(fleet(gpus)[ROOT]))
    assert [device.links for device in found.devices] == [gpu.links for gpu in gpus]
    assert [device.node for device in found.devices] == [0, 1, 0, 1]
    assert from_wire(json.loads(json.dumps(to_wire(found)))) == found


def test_the_kernel_knows_sockets_without_nvml(fleet: MakeFleet) -> None:
    gpus = connected(nvidia(4), [(0, 2)], [0, 1, 0, 1])
    found = detection.detect(30.0, Machine(fleet(gpus, without=["libnvidia-ml.so.1"])[ROOT]))
    assert [(device.node, device.links) for device in found.devices] == [
        (0, ()), (1, ()), (0, ()), (1, ()),
    ]  # fmt: skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the driver is Linux's")
def test_amds_driver_knows_links_and_the_kernel_sockets(fleet: MakeFleet) -> None:
    gpus = connected(amd(4), [(0, 2), (1, 3)], [0, 1, 0, 1])
    found = detection.detect(30.0, Machine(fleet(gpus)[ROOT]))
    assert [device.links for device in found.devices] == [gpu.links for gpu in gpus]
    assert [device.node for device in found.devices] == [0, 1, 0, 1]


def test_a_mig_instance_is_in_no_gang() -> None:
    devices = [Device("nvidia", n, parent="GPU-1" if n in (1, 4) else "") for n in range(6)]
    assert _gang(devices, 3, unowned=[4, 5]) == ["2", "3", "5"]
