"""Which of a worker's tests an Xid is of, and for how long one is waited for."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pytest_fkit.protocol.border import ItemAttempt
from pytest_fkit.protocol.endings import Finished
from pytest_fkit.protocol.event_file import GpuError
from pytest_fkit.worker.reports.xids_of_tests import TestXids

DOUBTFUL = GpuError("sticky", "illegal access", doubtful=True)


@pytest.fixture
def xids(tmp_path: Path) -> TestXids:
    (tmp_path / "xids").write_text('{"ready": "NVML"}\n')
    return TestXids(str(tmp_path / "xids"), ["3"])


def tell(tmp_path: Path, number: int, gpu: str = "3", **more: Any) -> None:
    said = {
        "xid": number, "gpus": [gpu], "wall": time.time(), "mono": time.monotonic(),
        "source": "NVML", **more,
    }  # fmt: skip
    with (tmp_path / "xids").open("a") as file:
        file.write(json.dumps(said) + "\n")


def named(xids: TestXids, item: Any) -> list[object]:
    return [each["xid"] for each in xids.add_to(item, ItemAttempt("", 0.0, Finished())).xids]


def test_each_is_of_one_test(xids: TestXids, tmp_path: Path) -> None:
    items: list[Any] = [object() for _ in range(3)]
    tell(tmp_path, 8)  # before any test
    xids.begins(items[0])
    tell(tmp_path, 13)
    # They share a process, and the second is told of before all is said of the first.
    xids.begins(items[1])
    tell(tmp_path, 31)
    xids.judge(items[0], None, "")
    xids.judge(items[1], None, "")
    tell(tmp_path, 43)  # between two tests
    xids.begins(items[2])
    tell(tmp_path, 48)
    tell(tmp_path, 79, gpu="2")
    xids.judge(items[2], None, "")
    assert [named(xids, each) for each in items] == [[13], [31], [48]]


def test_where_gpus_are_shared_a_programs_xid_decides_only_if_it_is_known_whose_it_is(
    tmp_path: Path,
) -> None:
    path = tmp_path / "xids"
    path.write_text('{"ready": "kernel log"}\n')
    xids = TestXids(str(path), ["3"], shared=True)
    item: Any = object()
    for number, above, category, counts, retry in (
        (31, [], "sticky", False, True),
        (31, [os.getpid()], "sticky", False, False),
        (79, [], "device", True, True),
    ):
        xids.begins(item)
        tell(tmp_path, number, source="kernel log", above=above)
        found = xids.judge(item, DOUBTFUL, "")
        assert found is not None
        assert (found.category, found.counts, found.retry) == (category, counts, retry)
        assert named(xids, item) == [number]


def test_a_gang_has_the_xids_of_its_gpus(xids: TestXids, tmp_path: Path) -> None:
    item: Any = object()
    xids.begins(item)
    xids.sees(item, ["1", "2"])
    tell(tmp_path, 79, gpu="2")
    tell(tmp_path, 48)
    xids.judge(item, None, "")
    assert named(xids, item) == [79]


def test_an_error_of_a_cached_fixture_is_decided_once(xids: TestXids, tmp_path: Path) -> None:
    error = GpuError("suspect", "launch failure", counts=True, event="model", doubtful=True)
    decided = []
    for number in range(2):
        item: Any = object()
        xids.begins(item)
        if not number:
            tell(tmp_path, 95)
        decided.append(xids.judge(item, error, ""))
    assert [each and each.category for each in decided] == ["device", "device"]
    assert decided[0] == decided[1]


def test_nobody_waits_in_vain_for_ever(xids: TestXids) -> None:
    began = time.monotonic()
    for _ in range(100):
        item: Any = object()
        xids.begins(item)
        assert xids.judge(item, DOUBTFUL, "") == DOUBTFUL
    # Two waits of half a second.
    assert 1.0 <= time.monotonic() - began < 10.0


def test_nobody_waits_where_nothing_can_be_read(tmp_path: Path) -> None:
    xids = TestXids(str(tmp_path / "absent"), ["3"])
    began = time.monotonic()
    for _ in range(2):
        item: Any = object()
        xids.begins(item)
        assert xids.judge(item, DOUBTFUL, "") == DOUBTFUL
    assert time.monotonic() - began < 1.0
