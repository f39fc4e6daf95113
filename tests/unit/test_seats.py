"""Where workers are."""

from __future__ import annotations

import pytest

from pytest_fkit.controller.schedule.machines import cpu_workers, seats


@pytest.mark.parametrize(
    ("tx", "hosts"),
    [
        (["2*popen"], ["", ""]),
        (["popen//python=python3.9"], [""]),
        (["ssh=node7", "ssh=me@node7//python=x"], ["node7", "node7"]),
        (["ssh=-p 2222 -i key me@127.0.0.1"], ["127.0.0.1"]),
        (["socket=192.168.1.102:8888", "socket=192.168.1.102:8889"], ["192.168.1.102"] * 2),
        (["vagrant_ssh=default"], ["default"]),
        (["2*popen//via=far"], ["node9", "node9"]),
        (["ssh=node7//id=a", "popen//via=a"], ["node7", "node7"]),
    ],
)
def test_hosts(tx: list[str], hosts: list[str]) -> None:
    assert [seat.machine for seat in seats(tx, ["id=far//ssh=me@node9"])] == hosts


def test_numbers_go_on_and_names_are_execnets() -> None:
    found = seats(["2*popen", "popen//id=mine", "ssh=node7"], [])
    assert [(seat.number, seat.name) for seat in found] == [
        (0, "gw0"),
        (1, "gw1"),
        (2, "mine"),
        (3, "gw2"),
    ]


def test_the_same_gpus_are_distributed_among_workers_with_the_same_masks() -> None:
    first, second, third = seats(
        ["popen", "popen//env:OTHER=1", "popen//env:CUDA_VISIBLE_DEVICES=1"], []
    )
    assert first.group == second.group != third.group
    assert third.environ == (("CUDA_VISIBLE_DEVICES", "1"),)


def test_workers_without_gpus_are_told_from_others() -> None:
    found = seats(["2*popen", *cpu_workers(2)], [])
    assert [(seat.name, seat.cpu) for seat in found] == [
        ("gw0", False),
        ("gw1", False),
        ("gw2", True),
        ("gw3", True),
    ]
