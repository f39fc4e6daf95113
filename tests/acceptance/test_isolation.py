"""Tests that share a process for as long as was asked, and what replaces it when it dies."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from inner_runs import Outcome, run

DEATHS = """
    import os, threading
    import pytest

    SEEN = []

    @pytest.fixture(scope="session", autouse=True)
    def widest():
        note(f"widest {os.getpid()}")
        yield
        note(f"end {os.getpid()}")

    def note(text):
        with open("notes", "a") as file:
            file.write(f"{text}\\n")

    class TestClass:
        def test_first(self):
            SEEN.append("first")

        def test_hands_on(self):
            assert SEEN == ["first"]
            note(f"before {os.getpid()}")

        @pytest.mark.fkit(LIMIT)
        def test_dies(self):
            HOW

        def test_after(self):
            assert SEEN == []
            SEEN.append("after")
            note(f"after {os.getpid()}")

        def test_hands_on_again(self):
            assert SEEN == ["after"]
            note(f"again {os.getpid()}")
"""

HOW = {
    "crash": ("os.abort()", "", "SIGABRT"),
    "exit": ("os._exit(0)", "", "exit status 0"),
    "hang": ("threading.Event().wait()", "timeout=0.5", "timed out after 0.5 s"),
    "memory": (
        "bytearray(200 << 20), threading.Event().wait(30)",
        "memory_limit='50M'",
        "memory limit 50 MiB exceeded",
    ),
}


@pytest.mark.parametrize("death", list(HOW))
@pytest.mark.parametrize("scope", ["class", "module", "session"])
def test_a_shared_process_that_dies_is_replaced(tmp_path: Path, scope: str, death: str) -> None:
    code, limit, ending = HOW[death]
    suite = DEATHS.replace("HOW", code).replace("LIMIT", limit)
    outcome = run(tmp_path, {"test_it.py": suite}, "--fkit", "-n0", f"--fkit-isolation={scope}")
    assert {
        nodeid: v.outcome for nodeid, v in outcome.verdicts.items() if v.outcome != "passed"
    } == {"test_it.py::TestClass::test_dies": "failed"}, outcome.stdout
    assert outcome.reports("test_dies").death["death"].startswith(ending)
    notes = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    pids = dict(notes)
    assert pids["before"] != pids["after"] == pids["again"]
    # Wide fixtures are set up anew in the process that takes over, and torn down there.
    assert [pid for what, pid in notes if what == "widest"] == [pids["before"], pids["after"]]
    assert [pid for what, pid in notes if what == "end"] == [pids["after"]]


def test_scopes_end_where_they_end(tmp_path: Path) -> None:
    test = """
    import os
    import pytest

    def note(name):
        with open("pids", "a") as file:
            file.write(f"{name} {os.getpid()}\\n")

    class TestOne:
        def test_1(self): note("a")
        def test_2(self): note("a")

    class TestTwo:
        def test_3(self): note("b")

        class TestInner:
            def test_4(self): note("c")
            def test_5(self): note("c")

    def test_6(): note("d")
    def test_7(): note("e")
    """
    outcome = run(tmp_path, {"test_it.py": test}, "--fkit", "-n1", "--fkit-isolation=class")
    assert outcome.status == 0, outcome.stdout
    seen = {tuple(line.split()) for line in (tmp_path / "pids").read_text().splitlines()}
    assert len({pid for _, pid in seen}) == len(seen) == len("abcde")


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_what_was_set_up_last_is_torn_down_first(tmp_path: Path, workers: str) -> None:
    """A module's process outlives that of a class in it, at the end of the run, too."""
    test = """
    import pytest

    @pytest.fixture(scope="module")
    def of_module():
        yield
        with open("ends", "a") as file: file.write("module\\n")

    @pytest.fixture(scope="class")
    def of_class(of_module):
        yield
        with open("ends", "a") as file: file.write("class\\n")

    def test_1(of_module): pass

    class TestClass:
        def test_2(self, of_class): pass
        def test_3(self, of_class): pass
    """
    outcome = run(tmp_path, {"test_it.py": test}, "--fkit", workers, "--fkit-isolation=class")
    assert outcome.status == 0, outcome.stdout
    assert (tmp_path / "ends").read_text().split() == ["class", "module", "module"]


def slow_fixture(tmp_path: Path, tests: int, *arguments: str) -> Outcome:
    suite = f"""
    import os, time
    import pytest

    @pytest.fixture(scope="session")
    def slow():
        with open("setups", "a") as file:
            file.write(f"{{os.getpid()}}\\n")
        time.sleep(1)

    @pytest.mark.parametrize("number", range({tests}))
    def test_it(slow, number):
        pass
    """
    return run(tmp_path, {"test_it.py": suite}, "--fkit", *arguments, timeout=300)


def test_a_session_fixture_is_set_up_once_per_worker(tmp_path: Path) -> None:
    began = time.monotonic()
    outcome = slow_fixture(tmp_path, 60, "-n2")
    assert outcome.status == 0
    assert len(outcome.verdicts) == 60
    assert len((tmp_path / "setups").read_text().split()) == 2
    assert time.monotonic() - began < 60  # not one second per test
