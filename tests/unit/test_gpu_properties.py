"""What holds for every mask, number of workers and slice size."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import execnet
import pytest
from gpu_values import amd, ascend, intel, mig, nvidia
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_fkit.config.settings import GpuSettings
from pytest_fkit.controller.workers.gateways import Gateways
from pytest_fkit.controller.workers.gpus import Gpus
from pytest_fkit.gpu.devices import Fleet
from pytest_fkit.gpu.slices.distribution import assign, slice_size, slices
from pytest_fkit.gpu.slices.environment import mask_variables
from pytest_fkit.gpu.vendors.detection import VENDORS, visible

FLEETS = st.one_of(
    st.builds(nvidia, st.integers(0, 16)),
    st.builds(mig, st.integers(1, 3), st.integers(1, 7), st.integers(0, 2)),
    st.builds(amd, st.integers(0, 16)),
    st.builds(intel, st.integers(0, 9)),
    st.builds(ascend, st.integers(0, 12)),
)
WORKERS = st.integers(1, 20)
SIZES = st.none() | st.integers(1, 10)


def _entries(fleet: Fleet) -> st.SearchStrategy[str]:
    """What may stand in a mask: ids that there are, and others."""
    uuids = [device.uuid for device in fleet.devices if device.uuid]
    numbers = [str(device.ordinal) for device in fleet.devices]
    rubbish = st.sampled_from(["", "-1", "99", "x", " 1", "0.1", "GPU-", "MIG-ffff", "1gpu"])
    known = [*numbers, *uuids, *(uuid[:12] for uuid in uuids)]
    return st.sampled_from(known) | rubbish if known else rubbish


@st.composite
def machines(draw: Any) -> tuple[Fleet, dict[str, str]]:
    """A fleet, and an environment with masks."""
    fleet = draw(FLEETS)
    environ = {}
    for name in VENDORS[fleet.vendor].masks if fleet.vendor else ():
        mask = draw(st.none() | st.lists(_entries(fleet), max_size=10, unique=draw(st.booleans())))
        if mask is not None:
            environ[name] = ",".join(mask)
    return fleet, environ


@given(machines(), WORKERS, SIZES)
@settings(deadline=None)
def test_slices_are_of_the_callers_mask_and_disjoint_where_they_can_be(
    machine: tuple[Fleet, dict[str, str]], workers: int, wanted: int | None
) -> None:
    seen = visible(*machine)
    size = slice_size(seen, workers, wanted)
    found = assign(seen, range(workers), size)
    owned = [place.slice for place in found.places]
    number = len(slices(seen.entries, size))

    assert len(owned) == workers
    assert all(len(each) == (size if seen.entries else 0) for each in owned)
    # In the order of the mask, from its beginning, and what follows is owned by nobody.
    distinct = list(dict.fromkeys(owned))
    assert sum(distinct, ()) + found.unowned == seen.entries
    assert len(distinct) == min(workers, max(1, number))
    assert len({entry for each in distinct for entry in each}) == sum(map(len, distinct))
    # Shared only where there is no other way.
    assert found.shares == (0 < number < workers)
    assert [place.shared for place in found.places] == [
        bool(each) and owned.count(each) > 1 for each in owned
    ]


@given(machines(), WORKERS, SIZES, st.sampled_from(["rocr", "hip"]))
@settings(deadline=None)
def test_a_worker_sees_its_slice_and_nothing_else(
    machine: tuple[Fleet, dict[str, str]], workers: int, wanted: int | None, amd_mask: str
) -> None:
    fleet, inherited = machine
    seen = visible(fleet, inherited)
    for place in assign(seen, range(workers), slice_size(seen, workers, wanted)).places:
        told = mask_variables(place, inherited, amd_mask)
        assert bool(told) == bool(place.slice)
        if told:
            again = visible(fleet, {**inherited, **told})
            expected = [entry.device for entry in place.slice]
            if fleet.vendor == "ascend":  # takes ids in ascending order only
                expected.sort(key=lambda device: device.ordinal)
            assert [entry.device for entry in again.entries] == expected
            assert set(again.notices) <= set(seen.notices)


@given(machines(), SIZES)
@settings(deadline=None)
def test_auto_means_as_many_workers_as_can_own_something(
    machine: tuple[Fleet, dict[str, str]], wanted: int | None
) -> None:
    seen = visible(*machine)
    size = slice_size(seen, None, wanted)
    number = len(slices(seen.entries, size))
    assert (number > 0) == bool(seen.entries)
    assert number * size <= len(seen.entries) < (number + 1) * size or not seen.entries
    if number:
        # The same size comes out again when that number of workers is given.
        assert slice_size(seen, number, wanted) == size
        assert not assign(seen, range(number), size).shares


class Gateway:
    """As execnet's, without a process, and its channel: answers as a new process would.

    Remembers what it is told.
    """

    def __init__(self, name: str, spec: Any, environ: dict[str, str]) -> None:
        self.id, self.spec, self._environ = name, spec, environ
        self.told: dict[str, str] = {}

    def remote_exec(self, source: object) -> Gateway:
        return self

    def send(self, item: Any) -> None:
        if item[0] == "set":
            self.told = item[1]

    def receive(self, timeout: float) -> Any:
        return {
            "environ": self._environ, "pid": 1, "cores": 8, "fleet": None, "problem": "",
        }  # fmt: skip

    def waitclose(self, timeout: float) -> None: ...


@given(machines(), st.integers(1, 6), SIZES, st.lists(st.integers(0, 5), max_size=8))
@settings(deadline=None, max_examples=50)
def test_a_worker_that_replaces_another_gets_the_same_environment(
    machine: tuple[Fleet, dict[str, str]], workers: int, wanted: int | None, deaths: list[int]
) -> None:
    fleet, inherited = machine
    asked = GpuSettings("auto", wanted, 0, "rocr", 10.0, ())
    config: Any = SimpleNamespace(getoption=lambda name, default=None: [], stash=pytest.Stash())
    plugin = Gateways(config, Gpus(asked, fleet), pytest.fail, None)
    specs = [execnet.XSpec("popen") for _ in range(workers)]
    for number, spec in enumerate(specs):
        spec.id = f"gw{number}"
    plugin.pytest_xdist_setupnodes(specs)

    def start(name: str, spec: Any) -> dict[str, str]:
        spec.id = name
        gateway = Gateway(name, spec, inherited)
        plugin.pytest_xdist_newgateway(cast("Any", gateway))
        return gateway.told

    try:
        first = [start(f"gw{number}", spec) for number, spec in enumerate(specs)]
        assert [told["FKIT_WORKER_ID"] for told in first] == [str(n) for n in range(workers)]
        for died, number in enumerate(deaths):
            number %= workers
            assert start(f"gw{workers + died}", specs[number]) == first[number]
    finally:
        plugin.pytest_unconfigure()
