"""Memory of GPUs as their driver counts it, on machines that do not exist."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Callable, Mapping

import pytest
from inner import run_pytest, write_files
from inner_runs import started, wait_until

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]

pytestmark = pytest.mark.skipif(not fleets.compiler(), reason="needs a C compiler")

# "late" is what a driver has not freed of processes that are gone, see nvml.c. What has waited for
# a process may have had a GPU open in it, as an engine of vLLM has.
SUITE = """\
import os, signal, subprocess, sys
from pathlib import Path
import pytest

ROOT = Path(os.environ["FKIT_FLEET_ROOT"])
UUID = os.environ["GPU"]

def looks():
    found = ROOT / "late-looks"
    return len(found.read_bytes()) if found.exists() else 0

def runs_a_program():
    subprocess.run(["true"], check=True)

def leave(gib, looks=1_000_000):
    (ROOT / "late-looks").write_text("")
    (ROOT / "late").write_text(f"{UUID} {gib << 30} {looks}\\n")
    runs_a_program()

"""


def run(fleet: Fleet, directory: Path, suite: str, *arguments: str, holder: int = 0) -> str:
    gpus = fleets.nvidia(1)
    write_files(directory, {"test_it.py": SUITE + suite})
    env = {**fleet(gpus), "GPU": gpus[0].uuid, "HOLDER": str(holder)}
    ended = run_pytest(directory, "--fkit", *arguments, env=env)
    return ended.out + ended.err


def test_memory_that_comes_back_late_is_waited_for(fleet: Fleet, tmp_path: Path) -> None:
    suite = """\
def test_first():
    leave(40, 5)

def test_second():
    assert looks() > 5  # somebody has looked until it was free
    (ROOT / "late-looks").write_text("")

def test_third():
    assert looks() == 0  # the second one had no GPU open
    sys.addaudithook(forbid)

def forbid(event, args):
    if event == "os.listdir":
        raise ValueError("nobody sees what is open here")
"""
    text = run(fleet, tmp_path, suite, "-n0")
    assert "3 passed" in text, text
    assert "not given back" not in text


def test_memory_that_does_not_come_back_is_named(fleet: Fleet, tmp_path: Path, holder: int) -> None:
    suite = """\
def test_leaks():
    leave(40)

def test_after_it():
    runs_a_program()

def test_of_which_somebody_else_takes_memory():
    (ROOT / "used").write_text(f"{UUID} {5 << 30} 0\\n")
    (ROOT / "processes").write_text(f"{UUID} {os.environ['HOLDER']} {5 << 30}\\n")
    runs_a_program()

def test_dies():
    leave(60)
    os.kill(os.getpid(), signal.SIGKILL)

def test_last():
    leave(70)
"""
    text = run(fleet, tmp_path, suite, "-n1", "--fkit-gpu-memory-timeout=0.2", holder=holder)
    assert "4 passed, 1 error" in text, text
    assert "3 tests left GPU memory that was not given back:" in text
    for name, gib in (("leaks", 40), ("dies", 20), ("last", 10)):
        line = f"  test_it.py::test_{name}  GPU 0: {gib} GiB more than before the test, held by no "
        assert line + "process that is seen here, 0." in text, text
    assert "GPU memory not given back:\n  GPU 0: 20 GiB" in text


def test_an_interrupt_ends_the_wait(fleet: Fleet, tmp_path: Path) -> None:
    gpus = fleets.nvidia(1)
    machine = fleet(gpus)
    looks = Path(machine["FKIT_FLEET_ROOT"], "late-looks")
    suite = SUITE + "def test_leaks():\n    leave(40)\n\ndef test_not_run():\n    pass\n"
    env = {**machine, "GPU": gpus[0].uuid}
    with started(tmp_path, {"test_it.py": suite}, "--fkit", "-n1", env=env) as inner:
        assert wait_until(lambda: looks.exists() and looks.stat().st_size > 3, 60.0)
        os.killpg(inner.process.pid, signal.SIGINT)
        outcome = inner.wait()
        assert outcome.status == 2, outcome.stdout
        assert not inner.await_gone(2.0)
        assert "test_not_run" not in outcome.stdout


NEEDS = """\
def in_use(gib, pid):
    (ROOT / "used").write_text(f"{UUID} {gib << 30} 0\\n")
    (ROOT / "processes").write_text(f"{UUID} {pid} {gib << 30}\\n")

@pytest.mark.fkit(gpu_memory="70G")
def test_has_it():
    in_use(60, os.environ["HOLDER"])

@pytest.mark.fkit(gpu_memory="40G")
@pytest.mark.xfail
def test_has_not():
    raise AssertionError("begun")

def test_needs_nothing():
    pass

@pytest.mark.fkit(gpu_memory="200G")
def test_more_than_there_is():
    raise AssertionError("begun")

@pytest.mark.fkit(gpu_memory="lots")
def test_wrong():
    raise AssertionError("begun")

@pytest.mark.world_memory("19G")
def test_of_a_plugin(): pass

@pytest.mark.world_memory("20G")
def test_of_a_plugin_has_not(): pass

def test_gives_it_back():
    in_use(0, 0)

@pytest.fixture(scope="module")
def server():
    held = open(Path(os.environ["HELD"]) / "dev/nvidia-uvm")
    in_use(75, os.getpid())
    yield held
    in_use(0, 0)

@pytest.mark.fkit(gpu_memory="70G", isolation="module")
class TestTogether:
    def test_first(self, server): pass
    def test_second(self, server): pass

"""

CONFTEST = """\
def pytest_configure(config):
    config.addinivalue_line("markers", "world_memory(size)")

def pytest_fkit_requirements(item):
    mark = item.get_closest_marker("world_memory")
    return None if mark is None else {"gpu_memory": mark.args[0]}
"""


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_a_test_begins_when_its_memory_is_free(
    fleet: Fleet, tmp_path: Path, holder: int, workers: str
) -> None:
    gpus = fleets.nvidia(1)
    write_files(tmp_path, {"test_it.py": SUITE + NEEDS, "conftest.py": CONFTEST})
    env = {**fleet(gpus), "GPU": gpus[0].uuid, "HOLDER": str(holder), "HELD": str(tmp_path)}
    ended = run_pytest(tmp_path, "--fkit", workers, "--fkit-gpu-memory-timeout=0.1", env=env)
    assert ended.outcomes == {
        "test_it.py::test_has_it": "PASSED",
        "test_it.py::test_has_not": "ERROR",
        "test_it.py::test_needs_nothing": "PASSED",
        "test_it.py::test_wrong": "ERROR",
        "test_it.py::test_of_a_plugin": "PASSED",
        "test_it.py::test_of_a_plugin_has_not": "ERROR",
        "test_it.py::test_gives_it_back": "PASSED",
        "test_it.py::TestTogether::test_first": "PASSED",
        "test_it.py::TestTogether::test_second": "PASSED",
    }, ended.out
    said = ended.message("test_it.py::test_has_not")
    assert said.startswith(
        "not begun: needs 40 GiB of GPU memory; GPU 0 has 19.65 GiB of 79.65 GiB free "
        f"(60 GiB: pid {holder} (S): "
    )
    assert "1 skipped" in ended.out
    assert "needs 200 GiB of GPU memory; GPU 0 has 79.65 GiB" in ended.out
    assert "@pytest.mark.fkit(gpu_memory='lots'): expected a size such as 500M or 2G" in ended.out
    assert "was not begun: it needs 40 GiB of GPU memory" in ended.out
    assert (
        "2 tests did not begin and were reported as errors:\n  test_it.py::test_has_not "
        in ended.out
    )
    assert "crashed" not in ended.out


LARGE = """\
import os
import pytest

def gpus():
    return sorted(os.environ["FKIT_GPU_IDS"].split(","))

@pytest.mark.parametrize("number", range(6))
@pytest.mark.fkit(gpu_memory="50G")
def test_one(number):
    assert gpus() != ["0"]

@pytest.mark.fkit(gpus=2, gpu_memory="50G")
def test_two():
    assert gpus() == ["1", "2"]

@pytest.mark.fkit(gpus=3, gpu_memory="50G")
def test_three():
    raise AssertionError("begun")

@pytest.mark.parametrize("number", range(3))
def test_any(number): pass
"""


def test_tests_run_where_gpus_are_large_enough(fleet: Fleet, tmp_path: Path) -> None:
    gpus = fleets.nvidia(3)
    gpus[0] = replace(gpus[0], memory=20 << 30)
    write_files(tmp_path, {"test_it.py": LARGE})
    ended = run_pytest(tmp_path, "--fkit", "-n3", "--fkit-gpus-per-worker=1", env=fleet(gpus))
    assert "10 passed, 1 skipped" in ended.out, ended.out
    assert "needs 50 GiB of GPU memory; GPU 0 has 20 GiB" in ended.out


def test_another_attempt_has_large_enough_gpus_too(fleet: Fleet, tmp_path: Path) -> None:
    gpus = fleets.nvidia(3, states={1: "sick", 2: "sick"})
    gpus[0] = replace(gpus[0], memory=20 << 30)
    suite = """\
import fleet_torch, pytest

@pytest.mark.fkit(gpu_memory="50G")
def test_it():
    fleet_torch.launch()
"""
    machine = fleet(gpus)
    write_files(tmp_path, {"test_it.py": suite})
    ended = run_pytest(
        tmp_path, "--fkit", "-n3", "--fkit-gpus-per-worker=1", "--fkit-probe=off",
        env=fleets.with_framework(machine),
    )  # fmt: skip
    assert "1 failed" in ended.out, ended.out
    root = Path(machine["FKIT_FLEET_ROOT"])
    assert [fleets.calls_of(root, number) for number in range(3)] == [0, 1, 1]


def test_where_nobody_tells_what_is_free_tests_begin_and_a_line_says_so(
    fleet: Fleet, tmp_path: Path
) -> None:
    write_files(tmp_path, {"test_it.py": LARGE})
    machine = fleet(fleets.nvidia(4), without=["libnvidia-ml.so.1"])
    ended = run_pytest(tmp_path, "--fkit", "-n0", "-k", "test_one", env=machine)
    assert "6 passed" in ended.out, ended.out
    said = "gpu_memory is not waited for: there is no libnvidia-ml.so.1"
    assert ended.out.count(said) == 1, ended.out


AMD = """\
import os, subprocess
from pathlib import Path
import pytest

def test_leaks():
    Path(os.environ["USED"]).write_text(f"{40 << 30}")
    subprocess.run(["true"], check=True)

@pytest.mark.fkit(gpu_memory="160G")
def test_lacks(): pass

@pytest.mark.fkit(gpu_memory="1T")
def test_never(): pass
"""


def test_amds_driver(fleet: Fleet, tmp_path: Path) -> None:
    gpus = fleets.amd(1)
    machine = fleet(gpus)
    device = Path(machine["FKIT_FLEET_ROOT"], "sys/bus/pci/devices", gpus[0].pci)
    write_files(tmp_path, {"test_it.py": AMD})
    env = {**machine, "USED": str(device / "mem_info_vram_used")}
    ended = run_pytest(tmp_path, "--fkit", "-n1", "--fkit-gpu-memory-timeout=0.1", env=env)
    assert "1 passed, 1 skipped, 1 error" in ended.out, ended.out
    assert "test_leaks  GPU 0: 39.72 GiB more than before the test" in ended.out
    said = "needs 160 GiB of GPU memory; GPU 0 has 152 GiB of 192 GiB free (40 GiB: no process"
    assert said in ended.message("test_it.py::test_lacks")


MIG = """\
def test_leaks(): leave(3)

@pytest.mark.fkit(gpu_memory="8G")
def test_lacks(): pass

@pytest.mark.fkit(gpu_memory="10G")
def test_never(): pass

@pytest.mark.fkit(gpu_memory="6G")
def test_fits(): pass
"""


def test_mig_instances_are_counted_by_themselves(fleet: Fleet, tmp_path: Path) -> None:
    gpus = fleets.nvidia(1, mig=[0], instances=2)
    first = (gpus[0].mig or ())[0].mig_uuid
    write_files(tmp_path, {"test_it.py": SUITE + MIG})
    env = {**fleet(gpus), "GPU": first}
    ended = run_pytest(tmp_path, "--fkit", "-n1", "--fkit-gpu-memory-timeout=0.1", env=env)
    assert "2 passed, 1 skipped, 1 error" in ended.out, ended.out
    assert f"test_leaks  GPU {first}: 3 GiB more than before the test" in ended.out


GANG = """\
@pytest.mark.parametrize("number", range(4))
def test_small(number): runs_a_program()

@pytest.mark.fkit(gpus=4, gpu_memory="60G")
def test_gang(): leave(40)

@pytest.mark.fkit(gpus=4, gpu_memory="70G")
def test_gang_lacks(): pass
"""


def test_a_gang_leaves_and_needs_memory_of_all_its_gpus(fleet: Fleet, tmp_path: Path) -> None:
    gpus = fleets.nvidia(4)
    write_files(tmp_path, {"test_it.py": SUITE + GANG})
    env = {**fleet(gpus), "GPU": gpus[3].uuid}
    ended = run_pytest(tmp_path, "--fkit", "-n2", "--fkit-gpu-memory-timeout=0.1", env=env)
    assert "5 passed, 1 error" in ended.out, ended.out
    assert "test_gang  GPU 3: 40 GiB more than before the test" in ended.out
    said = "GPU 3 has 39.65 GiB of 79.65 GiB free (40 GiB: no process that is seen here)"
    assert said in ended.message("test_it.py::test_gang_lacks")


KILLS = """\
import psutil

def test_before(): runs_a_program()
def test_kills_keeper(): psutil.Process().parents()[1].kill()
def test_between(): leave(30, 4)
def test_kills_worker(): psutil.Process().parents()[2].kill()
def test_after(): leave(20, 4)
def test_last(): assert looks() > 4
"""


def test_keepers_and_workers_that_follow_killed_ones_wait_too(fleet: Fleet, tmp_path: Path) -> None:
    gpus = fleets.nvidia(1)
    env = {**fleet(gpus), "GPU": gpus[0].uuid}
    with started(tmp_path, {"test_it.py": SUITE + KILLS}, "--fkit", "-n1", env=env) as inner:
        outcome = inner.wait()
        assert "4 passed, 2 errors" in outcome.stdout, outcome.stdout
        assert not inner.await_gone(2.0)
