"""Who owns what."""

from __future__ import annotations

import pytest
from gpu_values import amd, mig, nvidia

from pytest_fkit.gpu.devices import Fleet
from pytest_fkit.gpu.slices.distribution import assign, slice_size, slices
from pytest_fkit.gpu.vendors.detection import visible


@pytest.mark.parametrize(
    ("gpus", "workers", "wanted", "size"),
    [
        (8, None, None, 2),
        (7, None, None, 2),
        (1, None, None, 1),
        (8, 4, None, 2),
        (8, 8, None, 1),
        (8, 5, None, 1),
        (8, 3, None, 2),
        (8, 1, None, 2),
        (8, 16, None, 1),
        (8, 4, 1, 1),
        (8, 8, 2, 2),
        (8, 2, 4, 4),
        (2, 1, 4, 2),
        (0, 4, None, 1),
        (0, None, 3, 1),
    ],
)
def test_gpus_per_worker(gpus: int, workers: int | None, wanted: int | None, size: int) -> None:
    assert slice_size(visible(nvidia(gpus), {}), workers, wanted) == size


def test_one_mig_instance_per_worker() -> None:
    seen = visible(mig(2, 7), {})
    assert slice_size(seen, None, None) == 1
    assert slice_size(seen, 2, None) == 1


def _owned(fleet: Fleet, workers: int, size: int) -> tuple[list[str], list[bool], list[str]]:
    found = assign(visible(fleet, {}), range(workers), size)
    return (
        [",".join(place.ids) for place in found.places],
        [place.shared for place in found.places],
        [entry.id for entry in found.unowned],
    )


@pytest.mark.parametrize(
    ("gpus", "workers", "size", "owned", "shared", "unowned"),
    [
        (8, 4, 2, "0,1 2,3 4,5 6,7", "", ""),
        (8, 8, 1, "0 1 2 3 4 5 6 7", "", ""),
        (7, 3, 2, "0,1 2,3 4,5", "", "6"),
        (8, 2, 2, "0,1 2,3", "", "4 5 6 7"),
        (4, 3, 2, "0,1 2,3 0,1", "0 2", ""),
        (2, 4, 1, "0 1 0 1", "0 1 2 3", ""),
        (3, 2, 2, "0,1 0,1", "0 1", "2"),
    ],
)
def test_worker_i_has_slice_i(
    gpus: int, workers: int, size: int, owned: str, shared: str, unowned: str
) -> None:
    ids, who_shares, rest = _owned(nvidia(gpus), workers, size)
    assert ids == owned.split()
    assert [str(number) for number, yes in enumerate(who_shares) if yes] == shared.split()
    assert rest == unowned.split()


def test_without_gpus_workers_own_nothing_and_share_nothing() -> None:
    assert _owned(Fleet(), 2, 1) == (["", ""], [False, False], [])


def test_numbers_of_workers_are_those_of_the_run() -> None:
    found = assign(visible(amd(4), {}), [5, 9], 2)
    assert [(place.worker, place.ids) for place in found.places] == [
        (5, ("0", "1")),
        (9, ("2", "3")),
    ]


def test_what_is_left_over_is_in_no_slice() -> None:
    entries = visible(nvidia(5), {}).entries
    assert slices(entries, 2) == [entries[0:2], entries[2:4]]
    assert slices(entries, 6) == []
