"""One test in a fresh interpreter that sees other GPUs, and a worker without processes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from inner_runs import Outcome, run

# Has the worker's loop run one test apart before, amid and after all others.
CONFTEST = """
    import json, os
    import psutil
    from pytest_fkit.worker.loop import TestLoop
    from pytest_fkit.worker.tests.sources import AllTests, Taken

    SEEN = os.environ.get("GPUS")
    WORKER = os.getpid()
    there = TestLoop.run_all

    def note(name, **entry):
        with open("log", "a") as log:
            log.write(json.dumps([name, dict(
                entry, pid=os.getpid(), gpus=os.environ.get("GPUS"), imported=SEEN,
            )]) + "\\n")

    def children():
        return len(psutil.Process(WORKER).children(recursive=True))

    class Some(AllTests):
        '''Some of the tests, at once; another one would follow.'''
        def __init__(self, positions):
            self._positions = positions
        def take(self, most):
            taken, self._positions = self._positions, []
            return Taken(taken, 0) if taken else None
        def put_back(self, positions, ordered=0):
            self._positions = [*positions, *self._positions]

    def run_all(self, tests):
        items = self._session.items
        by_name = {item.name: position for position, item in enumerate(items)}
        apart = [position for name, position in by_name.items() if "apart" in name]
        others = [position for name, position in by_name.items() if "apart" not in name]
        yield from there(self, Some(others))
        note("before", children=children())
        self.vacate()
        note("vacated", children=children())
        for position in apart:
            yield from self.run_apart(position, {"GPUS": "0,1,2,3"})
            note("after", children=children())
        yield from there(self, Some(others))

    TestLoop.run_all = run_all
"""

SUITE = """
    import os, signal, subprocess, sys, time
    import pytest
    from conftest import note

    NUMBER = len(os.environ.get("GPUS", "0").split(","))

    @pytest.fixture(scope="module")
    def wide():
        note("wide set up")
        yield
        note("wide torn down")

    def test_own(wide):
        note("own")

    @pytest.mark.skipif(NUMBER < 4, reason="test requires multiple GPUs")
    def test_apart(wide):
        note("apart")

    def test_apart_fails():
        assert NUMBER == 1, "as it has to be"

    def test_apart_dies():
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        os.abort()

    @pytest.mark.fkit(timeout=0.5)
    def test_apart_hangs():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)

    @pytest.mark.fkit(gpus="x")
    def test_apart_wrong(): pass

    @pytest.mark.parametrize("number", range(NUMBER, 5))
    def test_apart_numbered(number):
        note(f"numbered {number}")

    @pytest.mark.narrow
    def test_apart_deselected(): pass
"""

DESELECTING = """
    def pytest_collection_modifyitems(config, items):
        if os.environ.get("GPUS"):
            narrow = [item for item in items if item.get_closest_marker("narrow")]
            items[:] = [item for item in items if item not in narrow]
            config.hook.pytest_deselected(items=narrow)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("gangs")
    outcome = run(
        directory,
        {
            "conftest.py": CONFTEST + DESELECTING,
            "test_it.py": SUITE,
            "pytest.ini": "[pytest]\nfkit_start_method = fork\nmarkers = narrow\n",
        },
        *("--fkit", "-n0"),
        timeout=120,
    )
    return outcome, [json.loads(line) for line in (directory / "log").read_text().splitlines()]


def test_it_sees_the_variables_from_its_first_import_on(ran: tuple[Outcome, Any]) -> None:
    outcome, log = ran
    entries = [entry for name, entry in log if name == "apart"]
    assert [(entry["gpus"], entry["imported"]) for entry in entries] == [("0,1,2,3", "0,1,2,3")]
    assert outcome.reports("test_apart").outcome == "passed"
    own = [entry for name, entry in log if name == "own"]
    assert [(entry["gpus"], entry["imported"]) for entry in own] == [(None, None)] * 2
    assert len({entry["pid"] for entry in (*entries, *own)}) == 3


def test_nothing_of_the_worker_is_left_and_it_goes_on(ran: tuple[Outcome, Any]) -> None:
    outcome, log = ran
    children = {name: [e["children"] for n, e in log if n == name] for name in ("before", "after")}
    assert children["before"][0] > 0
    assert [entry["children"] for name, entry in log if name == "vacated"] == [0]
    # The keeper stays; whatever became of the test, its processes are gone.
    assert set(children["after"]) <= {0, 1}
    names = [name for name, _ in log if name.startswith("wide") or name == "vacated"]
    # In its own process, and then in the one that was there, and for the second round.
    assert names == [
        "wide set up", "wide torn down", "vacated", "wide set up", "wide torn down", "wide set up",
        "wide torn down",
    ]  # fmt: skip
    # It ran twice, which is not lost on those who count verdicts.
    *told, counted = outcome.reports("test_own").reports
    assert len(told) == 6
    assert "more than one verdict" in counted["text"]


def test_its_endings_are_reported(ran: tuple[Outcome, Any]) -> None:
    outcome, _ = ran
    [failed] = outcome.reports("test_apart_fails").failures
    assert "as it has to be" in failed["text"]
    assert "SIGABRT" in outcome.reports("test_apart_dies").death["text"]
    assert outcome.reports("test_apart_hangs").death["death"].startswith("timed out")
    [wrong] = outcome.reports("test_apart_wrong").failures
    assert "fkit(gpus='x'): expected a non-negative number of GPUs" in wrong["text"]


def test_what_is_not_collected_there_is_an_error_that_says_so(ran: tuple[Outcome, Any]) -> None:
    outcome, log = ran
    assert [name for name, _ in log if name.startswith("numbered")] == ["numbered 4"]
    begins = "the fresh interpreter that was to run this test (with GPUS=0,1,2,3) "
    [missing] = outcome.reports("test_apart_numbered[1]").failures
    assert missing["text"].startswith(f"{begins}did not collect it, but ")
    [deselected] = outcome.reports("test_apart_deselected").failures
    assert deselected["text"] == (
        f"{begins}collected it, and then a hook or an option deselected it"
    )
