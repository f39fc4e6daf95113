"""Xids: errors of a GPU that the driver tells of by NVML's events, or in the kernel's log."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Callable, Mapping

import chrome_trace
import pytest
from inner import InnerRun, run_pytest, write_files
from journals import events, fkit

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]

pytestmark = pytest.mark.skipif(not fleets.compiler(), reason="no C compiler for the library")

_CONFTEST = """\
import os, time

def pytest_collection(session):
    # What is written before the kernel's log is open is of the past.
    path = getattr(session.config, "workerinput", {}).get("fkit_xids")
    deadline = time.monotonic() + 60
    while path and open(path).read().count('"ready"') < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.environ["READ"] = path or ""

def pytest_fkit_classify(item, failure):
    return False if "denied" in item.name else None
"""

_TOLD = """\
import os, time
from pathlib import Path
import fleet_torch

ROOT = Path(os.environ["FKIT_FLEET_ROOT"])
UUIDS, PCI = os.environ["UUIDS"].split(), os.environ["PCI"].split()
MINE = int(os.environ["FKIT_GPU_IDS"].split(",")[0])

def append(name, line):
    with open(ROOT / name, "a") as file:
        file.write(line + "\\n")

def nvml(number, gpu=MINE, delay=0):
    append("xids", f"{UUIDS[gpu]} {number} -1 {delay}")

def log(number, text, gpu=MINE, facility=0):
    pci = PCI[gpu].rpartition(".")[0]
    append("dev/kmsg", f"{facility * 8 + 3},1,2,-;NVRM: Xid (PCI:{pci}): {number}, {text}")

def is_first(name):
    try:
        (ROOT / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
"""

_SUITE = (
    _TOLD
    + """
def test_of_device():
    if is_first("device"):
        nvml(79)
        log(79, "pid='<unknown>', name=<unknown>, GPU has fallen off the bus.")
        fleet_torch.launch(1, 0, "illegal")

def test_of_program():
    is_first("program") or log(0, "must not be run again")
    log(31, f"pid={os.getpid()}, name=python3, Ch 00000008, MMU Fault")
    fleet_torch.launch(1, 0, "illegal")

def test_dies():
    if is_first("dies"):
        nvml(48, delay=20)
        os.abort()

def test_dies_of_itself():
    is_first("itself") or log(0, "must not be run again")
    nvml(43)
    log(48, "written by a user", facility=1)
    os.abort()

def test_assertion():
    is_first("assertion") or log(0, "must not be run again")
    nvml(79)
    assert False

def test_denied():
    is_first("denied") or log(0, "must not be run again")
    nvml(79)
    os.abort()

def test_passes():
    nvml(63)
    log(63, f"pid={os.getpid()}, name=python3, Row Remapper: New row marked for remapping")
    # Until somebody has read it.
    path = os.environ["READ"]
    while '"xid": 63' not in open(path).read():
        time.sleep(0.01)

def test_of_others():
    # Another GPU's, another process's, and one of nobody.
    nvml(31, gpu=2)
    log(31, "pid=1, name=init, MMU Fault")
    append("xids", "GPU-unknown 79 -1")
    append("xids", "rubbish")
    append("dev/kmsg", "\\x00\\xff;;NVRM: Xid (PCI")
    fleet_torch.launch(1, 0, "illegal")
"""
)


def _env(fleet: Fleet, **more: Any) -> dict[str, str]:
    gpus = fleets.nvidia(3)
    machine = fleets.with_framework(fleet(gpus, **more))
    for name in ("xids", "dev/kmsg"):
        Path(machine["FKIT_FLEET_ROOT"], name).touch()
    return {
        **machine,
        "UUIDS": " ".join(each.uuid for each in gpus),
        "PCI": " ".join(each.pci for each in gpus),
    }


def _run(tmp_path: Path, env: Mapping[str, str], suite: str, *options: str) -> InnerRun:
    write_files(tmp_path, {"test_x.py": suite, "conftest.py": _CONFTEST})
    return run_pytest(
        tmp_path, "--fkit", "--fkit-gpus-per-worker=1", "--fkit-probe=off",
        "--fkit-retire-after=0", "--fkit-journal=run.jsonl", *options, env=env, timeout=120,
    )  # fmt: skip


def test_they_decide_where_a_message_cannot(fleet: Fleet, tmp_path: Path) -> None:
    ended = _run(tmp_path, _env(fleet), _SUITE, "-n2", "--fkit-trace=run.json")
    by_name = {nodeid.partition("::")[2]: outcome for nodeid, outcome in ended.outcomes.items()}
    assert by_name == {
        "test_of_device": "PASSED", "test_of_program": "FAILED", "test_dies": "PASSED",
        "test_dies_of_itself": "ERROR", "test_assertion": "FAILED", "test_denied": "ERROR",
        "test_passes": "PASSED", "test_of_others": "FAILED",
    }, ended.out  # fmt: skip
    retried = [line for line in ended.lines if line.startswith("retrying ")]
    why = {line.split()[1].partition("::")[2]: line.partition("): ")[2] for line in retried}
    assert set(why) == {"test_of_device", "test_dies", "test_of_others"}
    assert why["test_of_device"].startswith("Xid 79 (GPU has fallen off the bus) on GPU ")
    assert ": CUDA error: an illegal memory access" in why["test_of_device"]
    assert why["test_dies"].startswith("Xid 48 (Double Bit ECC Error) on GPU ")
    assert ": SIGABRT in call" in why["test_dies"]
    assert "Xid" not in why["test_of_others"]

    journal = tmp_path / "run.jsonl"
    errors = {each["test"].partition("::")[2]: each for each in events(journal, "gpu_error")}
    categories = {name: each["category"] for name, each in errors.items()}
    assert categories == {
        "test_of_device": "device", "test_dies": "device", "test_of_program": "sticky",
        "test_of_others": "sticky",
    }  # fmt: skip
    met = Counter(
        (each["test"].partition("::")[2], xid["xid"])
        for each in events(journal, "attempt")
        for xid in each.get("xids", ())
    )
    assert met == {
        ("test_of_device", 79): 1, ("test_of_program", 31): 1, ("test_dies", 48): 1,
        ("test_dies_of_itself", 43): 1, ("test_assertion", 79): 1, ("test_denied", 79): 1,
        ("test_passes", 63): 1,
    }  # fmt: skip
    # What fell into nobody's time: another process's.
    foreign = [each for each in events(journal, "xid") if each.get("process") == "init"]
    assert {(each["source"], each["message"]) for each in foreign} == {("kernel log", "MMU Fault")}

    titles = {"of_program": "31 (GPU memory page fault)", "assertion": "79 (GPU has fallen "}
    for name, title in titles.items():
        [told] = (e for e in events(journal, "verdict") if e["test"].endswith(f"test_{name}"))
        texts = [text for report in told["reports"] for _, text in report.get("sections", ())]
        assert any(text.startswith(f"Xid {title}") for text in texts)
    said = fkit(tmp_path, "summary", "run.jsonl").stdout.splitlines()
    assert "  during test_x.py::test_of_device" in said
    assert any(line.startswith("Xid 79 (GPU has fallen off the bus) on GPU ") for line in said)
    marks = {each["name"] for each in chrome_trace.load(tmp_path / "run.json") if each["ph"] == "i"}
    assert {"Xid 79 (GPU has fallen off the bus)", "Xid 31 (GPU memory page fault)"} <= marks


_ALONE = (
    _TOLD
    + """
def test_passes(): pass

def test_of_program():
    nvml(31)
    fleet_torch.launch(1, 0, "illegal")

def test_dies():
    nvml(79)
    append("xids", "hang 0 0")
    os.abort()
"""
)


def test_where_nothing_can_be_tried_elsewhere_they_are_named(fleet: Fleet, tmp_path: Path) -> None:
    ended = _run(tmp_path, _env(fleet), _ALONE, "-n0")
    assert " 1 failed, 1 passed, 1 error in " in ended.lines[-1], ended.out + ended.err
    assert "Xid 31 (GPU memory page fault) on GPU 0 at " in ended.out
    assert "Xid 79 (GPU has fallen off the bus) on GPU 0 at " in ended.out
    met = [
        [xid["xid"] for xid in each.get("xids", ())]
        for each in events(tmp_path / "run.jsonl", "attempt")
    ]
    assert met == [[], [31], [79]]


_TROUBLE = (
    _TOLD
    + """
import pytest

def test_of_driver():
    append("xids", "crash 0 0")
    for number in range(3000):
        log(13, "pid='<unknown>', name=<unknown>, Graphics SM Warp Exception " + 300 * "x")

@pytest.mark.parametrize("number", range(3))
def test_it(number):
    log(31, "MMU Fault")
    if number == 2:
        fleet_torch.launch(1, 0, "illegal")
"""
)


def test_what_crashes_in_a_storm_keeps_nobody(fleet: Fleet, tmp_path: Path) -> None:
    ended = _run(tmp_path, _env(fleet), _TROUBLE, "-n1")
    assert " 1 failed, 3 passed in " in ended.lines[-1], ended.out + ended.err
    assert "Xid 31 (GPU memory page fault) on GPU 0 at " in ended.out
    storm = [each for each in events(tmp_path / "run.jsonl", "xid") if each["xid"] == 13]
    assert len(storm) <= 200
