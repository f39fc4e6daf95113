"""GPU errors: told by workers that own GPUs, for failures of which the device may be the cause."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Callable, Mapping

import pytest
from gpu_events import hear

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]

ERRORS = {
    "test_errors.py": """\
import os, subprocess, sys
import pytest

class AcceleratorError(RuntimeError):
    error_code = 719
AcceleratorError.__module__ = "torch"

ECC = "CUDA error: uncorrectable ECC error encountered"
HANG = "HW Exception by GPU node-9 (Agent handle: 0x631351bb5a20) reason :GPU Hang\\n"

def run(text, **options):
    subprocess.run([sys.executable, "-c", f"raise RuntimeError({text!r})"], **options)

@pytest.fixture(scope="module")
def server():
    run("CUDA error: out of memory")
    raise RuntimeError("Engine core initialization failed. See root cause above.")

@pytest.fixture
def broken():
    raise RuntimeError("No CUDA GPUs are available")

@pytest.fixture(scope="module")
def wide():
    raise RuntimeError("CUDA error: out of memory")

@pytest.fixture(scope="class")
def breaks_late():
    yield
    raise RuntimeError("HIP error: unspecified launch failure")

def test_call(): raise RuntimeError(f"{ECC}\\nand advice")
def test_setup(broken): pass
def test_wide(wide): pass
def test_wide_again(wide): pass
def test_code(): raise AcceleratorError("it failed")
def test_wrapped():
    try:
        raise RuntimeError(ECC)
    except RuntimeError as error:
        raise ValueError("engine") from error
def test_skip(): pytest.skip("no GPU")
@pytest.mark.skipif(True, reason="CUDA not available")
def test_skipif(): pass
def test_own(): raise OSError("warp stuck, somehow")
def test_death(): os.write(2, HANG.encode()); os.abort()
class TestLate:
    def test_late(self, breaks_late): pass
def test_of_a_subprocess(): run("CUDA error: hardware stack error", check=True)
def test_served(server): pass
def test_served_again(server): pass

# None of these is one.
def test_passes(): pass
def test_assertion(): assert ECC in "fine"
def test_equal(): assert "fine" == ECC
def test_fail(): pytest.fail(ECC)
def test_did_not_raise():
    with pytest.raises(RuntimeError, match=ECC): pass
def test_no_match():
    with pytest.raises(RuntimeError, match="CUDA error: x"): raise RuntimeError(ECC)
def test_while_looking():
    try:
        raise RuntimeError(ECC)
    except RuntimeError as error:
        assert "fine" in str(error)
def test_raised():
    with pytest.raises(RuntimeError): raise RuntimeError(ECC)
@pytest.mark.xfail
def test_expected(): raise RuntimeError(ECC)
@pytest.mark.skipif(True, reason="test requires multiple GPUs")
def test_too_few(): pass
def test_key(): {}[ECC]
def test_no_cause(): raise RuntimeError("Please see the error messages above.")
def test_not_the_cause():
    run(ECC)
    raise ValueError("the model has no such layer")
def test_command(): subprocess.run([sys.executable, "-c", f"raise SystemExit({ECC!r})"], check=True)
def test_other_death(): os.write(2, b"CUDA out of memory, trying with less"); os.abort()
""",
    "pytest.ini": "[pytest]\nfkit_gpu_errors = memory: warp (stuck|lost)\n",
}

EXPECTED = {
    "test_call": "device", "test_setup": "missing", "test_wide": "memory",
    "test_wide_again": "memory", "test_code": "suspect", "test_wrapped": "device",
    "test_skip": "missing", "test_skipif": "missing", "test_own": "memory",
    "test_death": "suspect", "test_late": "suspect", "test_of_a_subprocess": "device",
    "test_served": "memory", "test_served_again": "memory",
}  # fmt: skip

START_METHODS = ["", "--fkit-isolation=session", "--fkit-start-method=spawn"]


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("arguments", START_METHODS)
def test_what_workers_tell(fleet: Fleet, tmp_path: Path, arguments: str) -> None:
    heard = hear(fleet(fleets.nvidia(2)), tmp_path, ERRORS, "-n1", *arguments.split())
    assert {name: error["category"] for name, error in heard.errors.items()} == EXPECTED
    assert heard.errors["test_call"] == {
        "category": "device", "text": "CUDA error: uncorrectable ECC error encountered",
        "counts": True, "probe": True, "poisons": True, "retry": True, "alone": False, "event": "",
        "doubtful": False, "gpus": [],
    }  # fmt: skip
    first, second = heard.errors["test_wide"], heard.errors["test_wide_again"]
    assert first["event"].startswith("test_errors.py::wide")
    assert heard.errors["test_setup"]["event"] == ""
    assert first["event"] == second["event"]
    for name in EXPECTED:
        kinds = heard.kinds_after(name)
        assert kinds[0] == "ItemStarted"
        assert kinds[-2:] == ["ItemFinished", "ItemComplete"]
        assert "ItemReported" in kinds
    # As long as nobody decides otherwise each is a verdict, as it was.
    outcomes = {(nodeid, outcome) for outcome, nodeid, _ in heard.ended.reported}
    assert ("test_errors.py::test_call", "FAILED") in outcomes
    assert ("test_errors.py::TestLate::test_late", "ERROR") in outcomes


@pytest.mark.parametrize("arguments", ["-n1", "-n0"])
def test_without_gpus_and_without_workers_there_are_none(
    fleet: Fleet, tmp_path: Path, arguments: str
) -> None:
    machine = fleet(fleets.nvidia(2)) if arguments == "-n0" else fleet()
    some = "test_call or test_wide or test_death or test_skip"
    heard = hear(machine, tmp_path, ERRORS, arguments, "-k", some)
    assert not heard.errors
    assert ("FAILED", "test_errors.py::test_call") in [each[:2] for each in heard.ended.reported]


STOPS = {
    "conftest.py": """\
import os

class Counts:
    def pytest_runtest_logreport(self, report):
        with open("heard.txt", "a") as log:
            log.write(f"{report.nodeid} {report.when} {report.outcome}\\n")

def pytest_configure(config):
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(Counts())
""",
    "test_stops.py": """\
def test_gpu(): raise RuntimeError("CUDA out of memory")
def test_next(): pass
def test_fails(): assert 0
def test_last(): pass
""",
}


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("arguments", START_METHODS)
def test_workers_don_t_stop_because_of_what_may_run_again(
    fleet: Fleet, tmp_path: Path, arguments: str
) -> None:
    files = {**STOPS, "drops_attempts.py": _DROPS}
    asked = ("-n1", "-x", "-p", "drops_attempts", *arguments.split())
    heard = hear(fleet(fleets.nvidia(2)), tmp_path, files, *asked)
    assert list(heard.errors) == ["test_gpu"]
    told = (tmp_path / "heard.txt").read_text().splitlines()
    assert told == [
        "test_stops.py::test_next setup passed", "test_stops.py::test_next call passed",
        "test_stops.py::test_next teardown passed", "test_stops.py::test_fails setup passed",
        "test_stops.py::test_fails call failed", "test_stops.py::test_fails teardown passed",
    ]  # fmt: skip


# A controller that drops attempts that met a GPU error, as if it ran them elsewhere.
_DROPS = """
from pytest_fkit.protocol.border import ItemComplete, ItemGpuError, ItemReported
from pytest_fkit.controller.workers.inbox import Inbox

add_told = Inbox.add_told

def dropped(self, node, told):
    kept, open_ = [], False
    for each in told:
        if isinstance(each, ItemGpuError):
            open_ = True
        elif isinstance(each, ItemComplete):
            open_ = False
        if not open_ or not isinstance(each, (ItemGpuError, ItemReported)):
            kept.append(each)
    add_told(self, node, kept)

Inbox.add_told = dropped
"""


HOOK = {
    "conftest.py": """\
import os

def pytest_fkit_classify(item, failure):
    if failure.death:
        return "device" if "gone" in failure.stderr else None
    if failure.skip:
        return "missing" if failure.text == "nothing here" else None
    if failure.text == "raise": raise ValueError("me too")
    if failure.text == "wrong": return "no such category"
    if "mine.Error" in failure.types:
        return "busy"
    return False
""",
    "test_hook.py": """\
import os
import pytest

class Error(Exception): pass
Error.__module__ = "mine"

def test_mine(): raise Error("x")
def test_not(): raise RuntimeError("CUDA error: unknown error")
def test_skip(): pytest.skip("nothing here")
def test_death(): os.write(2, b"it is gone"); os.abort()
def test_raises(): raise RuntimeError("raise")
def test_wrong(): raise RuntimeError("wrong")
""",
}


def test_plugins_have_the_first_say(fleet: Fleet, tmp_path: Path) -> None:
    heard = hear(fleet(fleets.amd(2)), tmp_path, HOOK, "-n1")
    assert {name: error["category"] for name, error in heard.errors.items()} == {
        "test_mine": "busy", "test_skip": "missing", "test_death": "device",
    }  # fmt: skip
    assert heard.ended.out.count("the hook pytest_fkit_classify raised ValueError('me too')") == 1
    assert heard.ended.out.count("answered 'no such category'; expected None, False, or one") == 1


UNUSUAL = {
    "test_unusual.py": """\
import unittest
import pytest

ECC = "CUDA error: uncorrectable ECC error encountered"

class TestUnit(unittest.TestCase):
    def test_fails(self): raise RuntimeError(ECC)
    def test_skips(self): self.skipTest("test requires CUDA")
    @unittest.skip("no GPU")
    def test_marked(self): pass
    def test_asserts(self): self.assertIn(ECC, "fine")

def test_doctest_like():
    try: raise RuntimeError(ECC)
    finally: raise KeyError("cleanup")

def test_surrogates(): raise RuntimeError(ECC + " \\udc80")
class Odd(RuntimeError):
    def __str__(self): raise ValueError
def test_odd(): raise Odd(ECC)

@pytest.fixture
def breaks_late():
    yield
    raise RuntimeError(ECC)
def test_teardown(breaks_late): pass
def test_twice(breaks_late): raise RuntimeError("CUDA out of memory")
""",
}


def test_unusual_failures(fleet: Fleet, tmp_path: Path) -> None:
    heard = hear(fleet(fleets.nvidia(2)), tmp_path, UNUSUAL, "-n1")
    assert {name: error["category"] for name, error in heard.errors.items()} == {
        "test_fails": "device", "test_skips": "missing", "test_marked": "missing",
        "test_doctest_like": "device", "test_surrogates": "device", "test_teardown": "device",
        "test_twice": "memory",
    }  # fmt: skip


_SUBTESTS = {
    "test_sub.py": """\
def test_sub(subtests):
    with subtests.test("fine"): pass
    with subtests.test("bad"): raise RuntimeError("CUDA out of memory")
    with subtests.test("plain"): pass
def test_plain(subtests):
    with subtests.test("bad"): assert "CUDA out of memory" == 1
def test_skip(subtests):
    with subtests.test("skips"):
        import pytest
        pytest.skip("no GPU")
""",
}


@pytest.mark.skipif(
    importlib.util.find_spec("_pytest.subtests") is None
    and importlib.util.find_spec("pytest_subtests") is None,
    reason="needs subtests",
)
@pytest.mark.parametrize("arguments", ["-n1", "-n1 --fkit-isolation=session"])
def test_subtests(fleet: Fleet, tmp_path: Path, arguments: str) -> None:
    heard = hear(fleet(fleets.nvidia(2)), tmp_path, _SUBTESTS, *arguments.split())
    assert {name: error["category"] for name, error in heard.errors.items()} == {
        "test_sub": "memory",
        "test_skip": "missing",
    }


def test_output_that_is_not_captured(fleet: Fleet, tmp_path: Path) -> None:
    files = {
        "test_x.py": (
            "import os, time\n"
            "def test_dies():\n"
            "    os.write(2, b'HW Exception by GPU node-9 reason :GPU Hang\\n')\n"
            "    time.sleep(0.5)  # it is passed on\n"
            "    os.abort()\n"
        )
    }
    heard = hear(fleet(fleets.amd(2)), tmp_path, files, "-n1", "-s")
    assert heard.errors["test_dies"]["category"] == "suspect"


COLLECTED = {
    "test_skips.py": "import pytest\npytest.skip('no GPU', allow_module_level=True)\n",
    "test_raises.py": "raise RuntimeError('No CUDA GPUs are available')\n",
    "test_other.py": "raise ValueError('CUDA is fun')\n",
    "test_slow.py": "import pytest\npytest.skip('slow', allow_module_level=True)\n",
    "test_fine.py": "def test_fine(): pass\n",
}


def test_collection(fleet: Fleet, tmp_path: Path) -> None:
    heard = hear(
        fleet(fleets.nvidia(2)), tmp_path, COLLECTED, "-n1", "--continue-on-collection-errors"
    )
    [(_, found)] = [event for event in heard.events if event[0] == "CollectionGpuErrors"]
    assert sorted(map(tuple, found)) == [
        ("test_raises.py", "missing"),
        ("test_skips.py", "missing"),
    ]
    assert heard.ended.outcomes["test_fine.py::test_fine"] == "PASSED"
