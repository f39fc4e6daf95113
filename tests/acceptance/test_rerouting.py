"""GPU errors: tests are tried again on other GPUs, sick workers retired, nothing is lost."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from pathlib import Path
from typing import Callable, Mapping

import pytest
from inner import InnerRun, run_pytest, write_files

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]

_FKIT = ("--fkit", "--fkit-gpus-per-worker=2", "-n4")

_SUITE = """\
import os
import pytest
import fleet_torch

pytestmark = pytest.mark.parametrize("number", range(int(os.environ["TESTS"])))

def note(number):
    with open(os.environ["LOG"], "a") as log:
        log.write(f"{number} {os.environ['FKIT_GPU_IDS']}\\n")

class TestLaunches:
    def test_it(self, number):
        note(number)
        fleet_torch.alloc(1, 1)
        assert fleet_torch.launch(number, 1) == number

class TestSkips:
    @pytest.mark.skipif(fleet_torch.device_count() == 0, reason="test requires CUDA")
    def test_it(self, number):
        note(number)
        assert fleet_torch.launch(number) == number

class TestBreaks:
    def test_it(self, number):
        note(number)
        fleet_torch.launch(number, 0, "illegal")
"""


# After GPUs were found and distributed, and before the worker imports anything else.
_BREAKS = """\
import os
from pathlib import Path
import fleet_state

if os.environ.get("PYTEST_XDIST_WORKER") == os.environ["BREAKS_IN"]:
    for each in os.environ["BREAKS"].split():
        ordinal, state = each.split("=")
        fleet_state.set_state(Path(os.environ["FKIT_FLEET_ROOT"]), int(ordinal), state)
"""


def _machine(fleet: Fleet, breaks: str = "", worker: str = "gw1") -> dict[str, str]:
    """Eight GPUs; some come into other states when a worker is up: "3=lost"."""
    return {**fleets.with_framework(fleet(fleets.nvidia(8))), "BREAKS": breaks, "BREAKS_IN": worker}


def _run(
    tmp_path: Path, env: Mapping[str, str], which: str, *arguments: str, tests: int = 40
) -> InnerRun:
    write_files(tmp_path, {"test_a.py": _SUITE, "conftest.py": _BREAKS})
    told = {**env, "LOG": str(tmp_path / "log"), "TESTS": str(tests)}
    # Three workers: where one is sick, there is a choice of others.
    options = (*_FKIT[:2], "-n3", *arguments)
    return run_pytest(tmp_path, f"test_a.py::{which}", *options, env=told, timeout=200)


def _places(tmp_path: Path) -> dict[str, list[str]]:
    """By test, the GPUs on which it ran."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in (tmp_path / "log").read_text().splitlines():
        number, gpus = line.split()
        found[number].append(gpus)
    return found


def test_what_a_sick_gpu_fails_passes_elsewhere_and_its_worker_retires(
    fleet: Fleet, tmp_path: Path
) -> None:
    env = _machine(fleet, "3=lost")
    ended = _run(tmp_path, env, "TestLaunches", "--fkit-probe=off", "-v", "--junitxml=junit.xml")
    assert ended.status == 0, ended.out
    assert Counter(ended.outcomes.values()) == {"PASSED": 40}
    retried = {number for number, places in _places(tmp_path).items() if len(places) > 1}
    assert len(retried) >= 3
    for places in _places(tmp_path).values():
        assert len(places) <= 2
        assert places[-1] != "2,3"
    announced = re.findall(
        r"^retrying \S+\[(\d+)\] on (gw\d) \(GPUs .,.\); attempt 1 on gw1 \(GPUs 2,3\): .",
        ended.out,
        re.M,
    )
    assert {number for number, _ in announced} == retried
    for number, worker in announced:
        line = rf"^\[{worker}\] .* PASSED after 2 attempts \S+\[{number}\]"
        assert re.search(line, ended.out, re.M), ended.out
    # In the test's line and in the short summary.
    assert ended.out.count("PASSED after 2 attempts") == 2 * len(retried)
    assert (
        ended.out.count("fkit: gw1 (GPUs 2,3) is retired: 3 GPU errors in a row, the last: ") == 1
    )
    assert f"{len(retried)} tests passed only on a retry:" in ended.lines
    cases = list(ElementTree.parse(tmp_path / "junit.xml").iter("testcase"))
    assert len(cases) == 40
    attempts = Counter(
        each.attrib["value"]
        for case in cases
        for each in case.iter("property")
        if each.attrib["name"] == "fkit_attempts"
    )
    assert attempts == {"2": len(retried), "1": 40 - len(retried)}


_ROW = """\
import pytest
import fleet_torch

NUMBERS = [
    pytest.param(number, marks=[pytest.mark.fkit(gpus=0)] if number % 3 == 2 else [])
    for number in range(36)
]

@pytest.mark.parametrize("number", NUMBERS)
def test_it(number):
    if number % 3 == 1:
        pytest.skip("not on this model")
    if number % 3 == 0:
        fleet_torch.launch(number)
"""


def test_what_did_not_try_a_gpu_does_not_end_its_row_of_errors(
    fleet: Fleet, tmp_path: Path
) -> None:
    write_files(tmp_path, {"test_row.py": _ROW, "conftest.py": _BREAKS})
    options = ("--fkit", "--fkit-gpus-per-worker=1", "-n2", "--fkit-probe=off")
    ended = run_pytest(tmp_path, *options, env=_machine(fleet, "1=lost"), timeout=200)
    assert Counter(ended.outcomes.values())["PASSED"] == 24, ended.out
    assert "fkit: gw1 (GPU 1) is retired: 3 GPU errors in a row, the last: " in ended.out


@pytest.mark.skipif(not fleets.compiler(), reason="no C compiler for the driver's library")
@pytest.mark.parametrize("which", ["TestLaunches", "TestSkips"])
def test_a_gpu_that_is_gone_runs_nothing(fleet: Fleet, tmp_path: Path, which: str) -> None:
    ended = _run(tmp_path, _machine(fleet, "2=missing 3=missing"), which)
    assert ended.status == 0, ended.out
    assert Counter(ended.outcomes.values()) == {"PASSED": 40}
    assert all(places != ["2,3"] for places in _places(tmp_path).values())
    assert ended.out.count("fkit: gw1 (GPUs 2,3) is retired: probe: ") == 1


def test_skips_of_a_gpu_that_is_gone_are_tried_elsewhere(fleet: Fleet, tmp_path: Path) -> None:
    env = _machine(fleet, "2=missing 3=missing")
    ended = _run(tmp_path, env, "TestSkips", "--fkit-probe=off")
    assert ended.status == 0, ended.out
    assert Counter(ended.outcomes.values()) == {"PASSED": 40}


@pytest.mark.parametrize("arguments", ["", "--fkit-isolation=session"])
def test_a_test_that_breaks_everywhere_fails_once_and_retires_nobody(
    fleet: Fleet, tmp_path: Path, arguments: str
) -> None:
    ended = _run(tmp_path, _machine(fleet), "TestBreaks", *arguments.split(), tests=12)
    assert ended.status == 1
    assert Counter(ended.outcomes.values()) == {"FAILED": 12}, ended.out
    assert "retired" not in ended.out
    assert ended.out.count("an illegal memory access was encountered") >= 12
    assert "12 tests failed on every attempt:" in ended.lines
    listed = [line for line in ended.lines if "  failed, 2 attempts  attempt 1 on gw" in line]
    assert len(listed) == 12


def test_one_failure_counts_for_maxfail_when_it_is_final(fleet: Fleet, tmp_path: Path) -> None:
    env = _machine(fleet, "3=lost")
    ended = _run(tmp_path, env, "TestLaunches", "--fkit-probe=off", "-x")
    assert Counter(ended.outcomes.values()) == {"PASSED": 40}, ended.out


_STOPS = """\
import os, time
from pathlib import Path
import fleet_torch

def test_meets_a_gpu_error_or_fails(request):
    fleet_torch.launch(1, 0)
    # Not before the controller has heard of the other worker's error.
    deadline = time.monotonic() + 60
    while '"gpu_error"' not in Path("journal").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert False, "is final"

test_is_the_same = test_meets_a_gpu_error_or_fails
"""


def test_what_waited_for_another_attempt_did_not_stop_the_run(fleet: Fleet, tmp_path: Path) -> None:
    env = _machine(fleet, "1=lost")
    write_files(tmp_path, {"test_a.py": _STOPS, "conftest.py": _BREAKS})
    options = ("--fkit", "--fkit-gpus-per-worker=1", "-n2", "--fkit-probe=off", "-x")
    ended = run_pytest(tmp_path, *options, "--fkit-journal=journal", env=env)
    assert Counter(ended.outcomes.values()) == {"FAILED": 2}, ended.out
    assert "no other attempt: the run ended before it" in ended.out
    assert "stopping after 1 failures" in ended.out
    assert "stopping after 2 failures" not in ended.out


def test_a_pass_on_another_attempt_can_be_made_a_failure(fleet: Fleet, tmp_path: Path) -> None:
    env = _machine(fleet, "3=lost")
    options = ("--fkit-probe=off", "--fkit-fail-on-retry")
    ended = _run(tmp_path, env, "TestLaunches", *options)
    failed = [nodeid for nodeid, outcome in ended.outcomes.items() if outcome == "FAILED"]
    assert len(failed) >= 3
    assert "passed on attempt 2 only (--fkit-fail-on-retry)" in ended.out
    assert "attempt 1 on gw1 (GPUs 2,3): " in ended.out
    assert ended.status == 1


def test_without_retries_failures_are_final(fleet: Fleet, tmp_path: Path) -> None:
    env = _machine(fleet, "3=lost")
    ended = _run(tmp_path, env, "TestLaunches", "--fkit-probe=off", "--fkit-max-retries=0")
    counts = Counter(ended.outcomes.values())
    assert counts["FAILED"] >= 3
    assert counts["FAILED"] + counts["PASSED"] == 40
    assert "retrying" not in ended.out
    assert "is retired" in ended.out


def test_the_only_worker_goes_on(fleet: Fleet, tmp_path: Path) -> None:
    env = _machine(fleet, "1=lost", "gw0")
    ended = _run(tmp_path, env, "TestLaunches", "-n1", "--fkit-probe=off", tests=6)
    assert Counter(ended.outcomes.values()) == {"FAILED": 6}, ended.out
    assert "retired" not in ended.out


_SUBTESTS = """\
from pathlib import Path

def test_it(subtests):
    tried = Path("tried")
    for number in range(3):
        with subtests.test(number=number):
            if number == 1 and not tried.exists():
                tried.touch()
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
"""


@pytest.mark.skipif(pytest.version_tuple < (9, 0), reason="no subtests without a plugin")
def test_subtests_that_passed_on_another_attempt_are_one_test(fleet: Fleet, tmp_path: Path) -> None:
    write_files(tmp_path, {"test_sub.py": _SUBTESTS})
    ended = run_pytest(tmp_path, *_FKIT[:2], "-n2", env=_machine(fleet))
    assert "retrying test_sub.py::test_it on gw" in ended.out, ended.out
    assert "1 test passed only on a retry:" in ended.lines
    assert " 1 passed in " in ended.lines[-1]
    assert ended.status == 0


_MODULE_SKIPS = """\
import os
import pytest
import fleet_torch

if not fleet_torch.device_count():
    with open(os.environ["LOG"]):  # until the other worker has told what it collected
        pytest.skip("no GPU", allow_module_level=True)

@pytest.mark.parametrize("number", range(4))
def test_it(number): pass
"""

_COLLECTS_FIRST = """
import pytest

@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw0":
        with open(os.environ["LOG"], "w"):
            pass
"""


def test_a_worker_that_collects_nothing_is_not_the_whole_run(fleet: Fleet, tmp_path: Path) -> None:
    files = {"test_skips.py": _MODULE_SKIPS, "conftest.py": _BREAKS + _COLLECTS_FIRST}
    write_files(tmp_path, files)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    env = {**_machine(fleet, "2=missing 3=missing"), "LOG": str(fifo)}
    ended = run_pytest(tmp_path, *_FKIT[:2], "-n2", "--fkit-probe=off", env=env)
    assert "(gw0: 4, gw1: 0)" in ended.out
    assert Counter(ended.outcomes.values())["PASSED"] == 4
    assert ended.status == 0, ended.out


_WIDE = """\
import pytest
import fleet_torch

@pytest.mark.skipif(fleet_torch.device_count() < 4, reason="test requires multiple GPUs")
def test_many():
    assert fleet_torch.device_count() >= 2

@pytest.mark.skipif(fleet_torch.device_count() < 4, reason="Need at least 4 CUDA devices")
def test_four():
    assert fleet_torch.device_count() == 4

@pytest.mark.skip(reason="not now")
def test_skipped(): pass

@pytest.mark.parametrize("number", range(6))
def test_it(number): pass
"""


def test_what_skips_itself_for_want_of_gpus_gets_them_if_asked(
    fleet: Fleet, tmp_path: Path
) -> None:
    write_files(tmp_path, {"test_wide.py": _WIDE})
    ended = run_pytest(tmp_path, *_FKIT, "--fkit-widen", env=_machine(fleet), timeout=200)
    assert ended.outcomes["test_wide.py::test_four"] == "PASSED", ended.out
    assert re.search(
        r"^retrying test_wide.py::test_four on gw. \(GPUs .,.,.,.\); ", ended.out, re.M
    )
    assert ": skipped itself for want of 4 GPUs" in ended.out
    assert "not now" in ended.out
    assert ended.out.count("SKIPPED [1]") == 2  # the other one wants two, which it has
    assert ended.status == 0


_WIDE_ERROR = """\
import os
from pathlib import Path
import pytest
import fleet_torch

@pytest.mark.skipif(fleet_torch.device_count() < 4, reason="Need at least 4 CUDA devices")
def test_four():
    with open("attempts", "a") as file:
        file.write(os.environ["FKIT_GPU_IDS"] + "\\n")
    if len(Path("attempts").read_text().splitlines()) <= int(os.environ["ERRORS"]):
        fleet_torch.launch(1, 0, "illegal")
    assert fleet_torch.launch(1, 3) == 1
"""


@pytest.mark.parametrize(("errors", "most"), [(1, 1), (2, 2), (2, 1)])
def test_what_got_more_gpus_gets_as_many_after_a_gpu_error(
    fleet: Fleet, tmp_path: Path, errors: int, most: int
) -> None:
    write_files(tmp_path, {"test_wide.py": _WIDE_ERROR})
    options = ("--fkit-widen", f"--fkit-max-retries={most}")
    env = {**_machine(fleet), "ERRORS": str(errors)}
    ended = run_pytest(tmp_path, *_FKIT, *options, env=env, timeout=200)
    [outcome] = ended.outcomes.values()
    assert outcome == ("PASSED" if most >= errors else "FAILED"), ended.out
    attempts = [set(line.split(",")) for line in (tmp_path / "attempts").read_text().splitlines()]
    assert [len(each) for each in attempts] == [4] * (most + 1)
    assert not attempts[0] & attempts[1]
    assert "attempt 1 on gw" in ended.out
    assert ": skipped itself for want of 4 GPUs" in ended.out


_NEEDS = """\
import os
import pytest
import fleet_torch

SEEN = fleet_torch.device_count()

@pytest.mark.fkit_multi_gpu(4)
@pytest.mark.skipif(SEEN < 4, reason="test requires multiple GPUs")
def test_four():
    assert fleet_torch.device_count() == 4 == SEEN
    assert fleet_torch.launch(1, 3) == 1

@pytest.mark.fkit(gpus=3)
def test_three():
    assert fleet_torch.device_count() == 3 == SEEN

@pytest.mark.fkit(gpus=16)
def test_sixteen(): pass

@pytest.mark.parametrize("number", range(20))
def test_it(number):
    assert fleet_torch.device_count() == 2

@pytest.mark.parametrize("number", range(4))
@pytest.mark.fkit(serial="port")
def test_serial(number):
    path = os.environ["LOG"]
    with open(path, "x"):
        pass
    os.unlink(path)

@pytest.mark.parametrize("number", range(2))
def test_other_of_the_port(number):
    test_serial(number)
"""


def test_a_test_gets_the_gpus_that_it_needs(fleet: Fleet, tmp_path: Path) -> None:
    write_files(tmp_path, {"test_needs.py": _NEEDS})
    env = {**_machine(fleet), "LOG": str(tmp_path / "log")}
    serial = "--fkit-serial-patterns=test_serial[1],test_other_*_port"
    ended = run_pytest(tmp_path, *_FKIT, serial, env=env, timeout=200)
    assert (
        Counter(line.partition(" ")[0] for line in ended.lines if "test_needs.py" in line)["PASSED"]
        == 28
    ), ended.out
    assert "needs 16 GPUs; this run has 8" in ended.out
    assert ended.status == 0


_PAIR = """\
import os
import pytest

@pytest.mark.fkit(gpus=2)
def test_pair(fkit_gpus):
    with open(os.environ["LOG"], "w") as log:
        log.write(",".join(fkit_gpus))
"""


def test_a_gang_has_gpus_of_one_socket(fleet: Fleet, tmp_path: Path) -> None:
    gpus = fleets.connected(fleets.nvidia(4), sockets=[0, 1, 0, 1])
    write_files(tmp_path, {"test_pair.py": _PAIR})
    log = tmp_path / "log"
    ended = run_pytest(
        tmp_path, "--fkit", "--fkit-gpus-per-worker=1", "-n4",
        env={**fleet(gpus), "LOG": str(log)}, timeout=200,
    )  # fmt: skip
    assert ended.status == 0, ended.out
    assert log.read_text() in ("0,2", "1,3")


_SICK_MEMBER = """\
import os
import pytest
import fleet_torch

@pytest.mark.fkit(gpus={number})
def test_gang(fkit_gpus):
    with open(os.environ["LOG"], "a") as log:
        log.write(",".join(fkit_gpus) + "\\n")
    if "1" in fkit_gpus:
        raise fleet_torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered", 214)
"""


@pytest.mark.parametrize(("number", "second"), [(2, "2,3"), (3, "1,2,3")])
def test_a_gang_is_tried_again_on_other_gpus_if_there_are_enough(
    fleet: Fleet, tmp_path: Path, number: int, second: str
) -> None:
    write_files(tmp_path, {"test_gang.py": _SICK_MEMBER.format(number=number)})
    log = tmp_path / "log"
    ended = run_pytest(
        tmp_path, "--fkit", "--fkit-gpus=0,1,2,3", "--fkit-gpus-per-worker=1", "-n4",
        env={**_machine(fleet), "LOG": str(log)}, timeout=200,
    )  # fmt: skip
    first, again = log.read_text().split()
    assert first == ("0,1" if number == 2 else "0,1,2")
    assert again == second, ended.out
    assert f"; attempt 1 on gw0 (GPUs {first}): CUDA error: uncorrectable" in ended.out


_KILLER = """\
import os, signal, time
from pathlib import Path
import pytest

WORKER = os.getpid()

@pytest.mark.parametrize("number", range(8))
def test_it(number):
    if number == 0:
        # Not before the controller has retired the other one.
        deadline = time.monotonic() + 60
        while '"retired"' not in Path("journal").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(WORKER, signal.SIGKILL)
        time.sleep(60)
"""


def test_a_retired_worker_comes_back_when_no_other_is_left(fleet: Fleet, tmp_path: Path) -> None:
    write_files(tmp_path, {"test_killer.py": _KILLER, "conftest.py": _BREAKS})
    ended = run_pytest(
        tmp_path, "--fkit", "--fkit-gpus-per-worker=2", "-n2", "--max-worker-restart=0",
        "--fkit-start-method=fork", "--fkit-journal=journal",
        env=_machine(fleet, "2=missing 3=missing"), timeout=200,
    )  # fmt: skip
    assert "gw1 (GPUs 2,3) is retired: probe: " in ended.out, ended.out
    assert "gw1 (GPUs 2,3) is back: no other worker is left" in ended.out
    assert "1 worker retired:" in ended.lines
    line = r"^  gw1 \(GPUs 2,3\): probe: .*; back: no other worker is left$"
    assert re.search(line, ended.out, re.M)
    assert Counter(ended.outcomes.values()) == {"PASSED": 7, "ERROR": 1}, ended.out
