"""Decisions on workers whose GPUs are in doubt, without workers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Iterator

import pytest

from pytest_fkit.controller.retry.rerouting import Edges, Rerouting
from pytest_fkit.controller.schedule import units
from pytest_fkit.controller.schedule.known_workers import Send
from pytest_fkit.controller.schedule.schedule import Schedule

SETTINGS: Any = SimpleNamespace(
    max_retries=1, fail_on_retry=False, retire_after=3, widen=False, network_retries=0
)


class Run:
    """A distribution of a test, with what is shown of it."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        edges = Edges(self.shown.append, _ignore, _ignore, _ignore)
        self.rerouting = Rerouting(SETTINGS, edges, recorder=None)
        self.schedule = Schedule([None])
        self.rerouting.start(self.schedule, ["test_it"], [], _ignore)

    def add(self, name: str, *gpus: str) -> Any:
        """A worker with GPUs is there."""
        node = SimpleNamespace(
            gateway=SimpleNamespace(id=name, spec=SimpleNamespace(ssh=None, socket=None)),
            workerinput={"fkit_gpus": {"ids": gpus}},
        )
        self.schedule.add_worker(name, [f"/{gpu}" for gpu in gpus])
        self.rerouting.add(node)
        return node

    def lose(self, name: str) -> None:
        """A worker is gone."""
        self.schedule.remove_worker(name)
        self.rerouting.lost(name, None)

    def sent(self) -> list[str]:
        """The workers that get something."""
        self.schedule.add_units(units.soft_units([units.Test(0)], sort=False))
        return [each.worker for each in self.schedule.decide() if isinstance(each, Send)]


def _ignore(*_: object) -> Any:
    return None


@pytest.fixture
def run() -> Iterator[Run]:
    """One whose timers are stopped."""
    run = Run()
    yield run
    run.rerouting.close()


def test_who_replaces_a_retired_worker_is_retired(run: Run) -> None:
    run.add("gw0", "0")
    run.rerouting.probed(run.add("gw1", "1"), "sick", "no device")
    run.lose("gw1")
    replacement = run.add("gw2", "1")
    run.add("gw3", "2")
    assert run.shown == [
        "fkit: gw1 (GPU 1) is retired: probe: no device",
        "fkit: gw2 (GPU 1) is retired: as gw1 before it",
    ]
    run.lose("gw0")
    assert run.sent() == ["gw3"]
    for _ in range(2):
        run.rerouting.probed(replacement, "healthy", "")
    assert run.shown[2:] == ["fkit: gw2 (GPU 1) is back: two probes in a row found it healthy"]
    assert run.rerouting.retired[1] == (
        "gw2 (GPU 1)", "as gw1 before it; back: two probes in a row found it healthy",
    )  # fmt: skip


def test_the_last_worker_goes_on_and_is_named_once(run: Run) -> None:
    last = run.add("gw0", "0")
    run.rerouting.probed(run.add("gw1", "1"), "sick", "no device")
    for _ in range(2):
        run.rerouting.probed(last, "sick", "an error")
    assert run.shown[1:] == ["fkit: gw0 (GPU 0) goes on, since no other is left: probe: an error"]
    assert run.rerouting.kept == [("gw0 (GPU 0)", "probe: an error")]
    assert run.rerouting.retired == [("gw1 (GPU 1)", "probe: no device")]


def test_who_replaces_the_last_worker_goes_on(run: Run) -> None:
    run.add("gw0", "0")
    run.rerouting.probed(run.add("gw1", "1"), "sick", "no device")
    run.lose("gw0")
    run.lose("gw1")
    run.add("gw2", "1")
    assert run.sent() == ["gw2"]


def test_who_is_retired_comes_back_when_nobody_else_is_left(run: Run) -> None:
    run.add("gw0", "0")
    run.rerouting.probed(run.add("gw1", "1"), "sick", "no device")
    run.rerouting.bring_back()
    run.lose("gw0")
    run.rerouting.bring_back()
    assert run.shown[1:] == ["fkit: gw1 (GPU 1) is back: no other worker is left"]
    assert run.sent() == ["gw1"]
