"""What journal, trace and JUnit file say of GPUs, on machines that do not exist."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, Callable, Mapping

import chrome_trace
import pytest
from inner import run_pytest, write_files
from journals import events, fkit

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]

SUITE = {
    "test_all.py": """\
import os, psutil, pytest

def test_kills_worker():
    if "KILLS" in os.environ:
        psutil.Process().parents()[2].kill()

@pytest.mark.parametrize("number", range(4))
def test_it(number): pass
""",
}


def process_names(trace: list[dict[str, Any]]) -> list[str]:
    return [str(each["args"]["name"]) for each in trace if each["name"] == "process_name"]


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_the_run_names_devices_and_slices(fleet: Fleet, tmp_path: Path, workers: str) -> None:
    three = "import pytest\n@pytest.mark.fkit(gpus=3)\ndef test_it(): pass\n"
    directory = write_files(tmp_path, {**SUITE, "test_three.py": three})
    gpus = fleets.nvidia(5)
    ended = run_pytest(
        directory, "--fkit", workers, "--fkit-journal=run.jsonl", "--fkit-trace=run.json",
        "--junitxml=junit.xml", env={**fleet(gpus), "CUDA_VISIBLE_DEVICES": "4,1,2,3"},
    )  # fmt: skip
    assert ended.status == 0, ended.out + ended.err
    journal = directory / "run.jsonl"
    (run,) = events(journal, "run")
    slices = {"main": ["4", "1"]} if workers == "-n0" else {"gw0": ["4", "1"], "gw1": ["2", "3"]}
    assert run["slices"] == slices
    assert [each["id"] for each in run["devices"]] == ["4", "1", "2", "3"]
    assert run["devices"][0] == {
        "id": "4", "vendor": "nvidia", "name": gpus[4].name, "uuid": gpus[4].uuid,
        "pci": gpus[4].pci, "memory": gpus[4].memory,
    }  # fmt: skip
    ups = {each["worker"]: each["gpus"] for each in events(journal, "worker_up")}
    assert ups == ({} if workers == "-n0" else slices)
    seen = {each["test"]: each for each in events(journal, "attempt")}
    assert len(seen.pop("test_three.py::test_it")["gpus"]) == 3
    for attempt in seen.values():
        assert attempt["gpus"] == slices[attempt["worker"]]
    trace = chrome_trace.load(directory / "run.json")
    titles = sorted(name.partition(" (")[0] for name in process_names(trace))
    assert titles == sorted(f"{worker}, GPUs {','.join(ids)}" for worker, ids in slices.items())
    assert fkit(directory, "csv", "run.jsonl").stdout.count('"4,1"') >= 1
    for case in ElementTree.parse(directory / "junit.xml").iter("testcase"):
        said = {each.get("name"): each.get("value") for each in case.iter("property")}
        shown = ",".join(slices[str(said["fkit_worker"])])
        assert (said["fkit_gpus"] == shown) == (case.get("classname") != "test_three")


def test_a_worker_that_replaces_another_has_a_pid_and_its_gpus(
    fleet: Fleet, tmp_path: Path
) -> None:
    directory = write_files(tmp_path, SUITE)
    env = {**fleet(fleets.nvidia(1)), "KILLS": "1"}
    ended = run_pytest(directory, "--fkit", "-n1", "--fkit-journal=run.jsonl", env=env)
    assert ended.status == 1, ended.out + ended.err
    first, second = events(directory / "run.jsonl", "worker_up")
    assert (first["gpus"], second["gpus"]) == (["0"], ["0"])
    assert first["pid"] != second["pid"]
    assert min(first["pid"], second["pid"]) > 0


def test_the_pid_is_the_workers(tmp_path: Path) -> None:
    suite = "import os, psutil\ndef test_it():\n    open('pids', 'w').write(repr(tuple(each.pid"
    suite += " for each in psutil.Process().parents())))\n"
    directory = write_files(tmp_path, {"test_all.py": suite})
    ended = run_pytest(directory, "--fkit", "-n1", "--fkit-journal=run.jsonl")
    assert ended.status == 0, ended.out + ended.err
    (up,) = events(directory / "run.jsonl", "worker_up")
    # Above the test are its host, the keeper and the worker.
    assert str(up["pid"]) == (directory / "pids").read_text().strip("()").split(", ")[2]
    (run,) = events(directory / "run.jsonl", "run")
    assert (run["devices"], run["slices"], up["gpus"]) == ([], {}, [])


USES = """\
import os, time
import pytest

ROOT = os.environ["FKIT_FLEET_ROOT"]

def use(gpus):
    with open(f"{ROOT}/used.new", "w") as file:
        file.writelines(f"{uuid} {size} {busy}\\n" for uuid, (size, busy) in gpus.items())
    os.replace(f"{ROOT}/used.new", f"{ROOT}/used")
    # Until all GPUs were looked at, from the first on: a look is two calls for each.
    before, deadline = looks(), time.monotonic() + 60
    while looks() < before + 2 * 2 * len(gpus):
        assert time.monotonic() < deadline
        time.sleep(0.01)

def looks():
    return os.path.getsize(f"{ROOT}/looks") if os.path.exists(f"{ROOT}/looks") else 0

FIRST, SECOND = os.environ["UUIDS"].split()

def test_big():
    use({FIRST: (1_000_000_000, 10), SECOND: (0, 0)})
    use({FIRST: (5_000_000_000, 80), SECOND: (2_000_000_000, 20)})
    use({FIRST: (1_000_000_000, 0), SECOND: (0, 0)})

def test_small():
    use({FIRST: (3_000_000_000, 0), SECOND: (0, 0)})

def test_dies():
    use({FIRST: (4_000_000_000, 0), SECOND: (0, 0)})
    os.abort()
"""


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_memory_and_utilisation_are_seen_while_tests_run(
    fleet: Fleet, tmp_path: Path, workers: str
) -> None:
    if not fleets.compiler():
        pytest.skip("there is no C compiler")
    directory = write_files(tmp_path, {"test_all.py": USES})
    gpus = fleets.nvidia(2)
    env = {**fleet(gpus), "UUIDS": f"{gpus[0].uuid} {gpus[1].uuid}"}
    ended = run_pytest(
        directory, "--fkit", workers, "--fkit-journal=run.jsonl", "--fkit-trace=run.json", env=env
    )
    assert "2 passed, 1 error" in ended.lines[-1], ended.out + ended.err
    journal = directory / "run.jsonl"
    peaks = {
        each["test"].partition("::")[2]: each["gpu_peak_memory"]
        for each in events(journal, "attempt")
    }
    assert peaks == {
        "test_big": 7_000_000_000, "test_small": 3_000_000_000, "test_dies": 4_000_000_000,
    }  # fmt: skip
    used = [each["used"] for each in events(journal, "gpus")]
    assert {
        "0": {"memory": 5_000_000_000, "utilisation": 80},
        "1": {"memory": 2_000_000_000, "utilisation": 20},
    } in used
    walls = [each["wall"] for each in events(journal, "gpus")]
    assert walls == sorted(walls)
    counters: dict[str, list[float]] = {}
    for each in chrome_trace.load(directory / "run.json"):
        if each["ph"] == "C" and "GPU" in each["name"]:
            counters.setdefault(each["name"], []).extend(each["args"].values())
    assert max(counters["GPU 0 memory"]) == round(5_000_000_000 / 2**20, 1)
    assert (max(counters["GPU 0"]), max(counters["GPU 1"])) == (80, 20)
    assert fkit(directory, "csv", "run.jsonl").stdout.splitlines()[0].count("gpu_peak_memory") == 1


def test_what_can_not_be_asked_is_said_in_the_journal(fleet: Fleet, tmp_path: Path) -> None:
    directory = write_files(tmp_path, {"test_all.py": WAITS})
    env = fleet(fleets.nvidia(1), behaviours={"libnvidia-ml.so.1": fleets.Behaviour(exits=9)})
    ended = run_pytest(directory, "--fkit", "-n1", "--fkit-journal=run.jsonl", env=env)
    assert ended.status == 0, ended.out + ended.err
    (said,) = events(directory / "run.jsonl", "gpus_unknown")
    assert said["error"] == "Driver Not Loaded"
    assert all("gpu_peak_memory" not in each for each in events(directory / "run.jsonl"))


WAITS = """\
import psutil, time

def test_it():
    # Until the process that looks has given up.
    deadline = time.monotonic() + 60
    while any("sampler" in " ".join(each.cmdline()) for each in looking()):
        assert time.monotonic() < deadline
        time.sleep(0.01)

def looking():
    controller = psutil.Process().parents()[3]
    return [each for each in controller.children() if each.status() != psutil.STATUS_ZOMBIE]
"""
