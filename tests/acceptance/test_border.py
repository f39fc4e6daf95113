"""Messages between controller and worker that get lost, doubled, swapped, damaged or come early."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from inner import InnerRun, run_pytest, write_files

_SUITE = {
    "test_a.py": """\
import pytest

@pytest.mark.parametrize("number", range(6))
def test_it(number): pass
""",
}

# Does something to one message of a type, once in a run, whichever process sends it.
_FAULT = """
import os, signal
from pytest_fkit.protocol import border

KIND, FAULT, ONCE = os.environ["FAULT"].split()

class Packer(border.Packer):
    held = b""

    def pack(self, *messages):
        frame = super().pack(*messages)
        if self.held:
            frame, self.held = frame + self.held, b""
        if KIND not in {type(message).__name__ for message in messages}:
            return frame
        try:
            os.close(os.open(ONCE, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return frame
        if FAULT == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if FAULT == "swapped":
            self.held = frame
        damaged = frame[:-1] + bytes([frame[-1] ^ 255])
        return {"doubled": 2 * frame, "damaged": damaged}.get(FAULT, b"")

border.Packer = Packer
"""


def _run(directory: Path, kind: str, fault: str, *arguments: str) -> InnerRun:
    suite = write_files(directory, {**_SUITE, "fault.py": _FAULT})
    once = directory / "once"
    ended = run_pytest(
        suite, "--fkit", "-n2", "-p", "fault", *arguments,
        env={"PYTHONPATH": ".", "FAULT": f"{kind} {fault} {once}"},
    )  # fmt: skip
    assert once.exists(), f"nobody sends {kind}"
    return ended


def _check(ended: InnerRun, said: str) -> None:
    """All is as without a fault, or what it touched is an error that says what is missing."""
    reported = {(nodeid, outcome) for outcome, nodeid, _ in ended.reported}
    assert {nodeid for nodeid, _ in reported} == {
        f"test_a.py::test_it[{number}]" for number in range(6)
    }
    # One may be in it twice: it passed, and that it was complete did not arrive.
    errors = {nodeid for nodeid, outcome in reported if outcome == "ERROR"}
    assert {outcome for _, outcome in reported} <= {"PASSED", "ERROR"}
    assert len(errors) <= 1, ended.out
    if errors:
        assert re.search(rf"lost: worker gw\d was killed: {said}", ended.out), ended.out
    assert ended.status == (1 if errors else 0)


@pytest.mark.in_turn(2)
@pytest.mark.parametrize(
    ("kind", "sender"),
    [
        ("Facts", r"worker gw\d"),
        ("ItemBegins", r"worker gw\d"),
        ("ItemReported", r"worker gw\d"),
        ("ItemComplete", r"worker gw\d"),
        ("Waits", r"worker gw\d"),
        ("Stopped", r"worker gw\d"),
        ("RunTests", "the controller"),
        ("TearDown", "the controller"),
    ],
)
def test_a_message_that_is_lost_costs_no_verdict(tmp_path: Path, kind: str, sender: str) -> None:
    _check(_run(tmp_path, kind, "lost"), rf"message \d+ from {sender} is missing")


@pytest.mark.in_turn(2)
@pytest.mark.parametrize(
    ("kind", "sender"), [("ItemReported", r"worker gw\d"), ("RunTests", "the controller")]
)
def test_a_message_that_is_damaged_ends_its_worker(tmp_path: Path, kind: str, sender: str) -> None:
    ended = _run(tmp_path, kind, "damaged")
    _check(ended, rf"message \d+ from {sender} is damaged")
    assert re.search(rf"fkit: gw\d is killed: message \d+ from {sender} is damaged", ended.out)


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("fault", ["doubled", "swapped"])
@pytest.mark.parametrize("kind", ["ItemReported", "RunTests"])
def test_what_comes_twice_or_out_of_order_changes_nothing(
    tmp_path: Path, kind: str, fault: str
) -> None:
    ended = _run(tmp_path, kind, fault)
    if kind == "RunTests" and fault == "swapped":  # its next message may be another second away
        _check(ended, r"message \d+ from the controller is missing")
        return
    assert set(ended.outcomes.values()) == {"PASSED"}
    assert ended.status == 0
    assert "is killed" not in ended.out


def test_a_worker_that_dies_while_it_says_so_costs_one_test(tmp_path: Path) -> None:
    ended = _run(tmp_path, "ItemReported", "killed")
    assert sorted(ended.outcomes.values()) == ["ERROR", *["PASSED"] * 5]
    assert ended.status == 1


# --- the order of events ------------------------------------------------------------------------

# The word of a replacement that it waits is heard before xdist's that it has collected.
_EARLY = """
import pytest
from xdist.workermanage import WorkerController
from pytest_fkit.protocol.border import Waits
from pytest_fkit.controller.workers.dispatch import Dispatch

late = {}
notify, hear = WorkerController.notify_inproc, Dispatch.hear

def notified(self, eventname, **more):
    if eventname == "collectionfinish" and self.gateway.id == "gw2":
        late[self] = lambda: notify(self, eventname, **more)
    else:
        notify(self, eventname, **more)

def heard(self, node, said):
    hear(self, node, said)
    if isinstance(said, Waits) and node in late:
        open("early", "w").close()
        late.pop(node)()

WorkerController.notify_inproc = notified
Dispatch.hear = heard
"""


def test_a_worker_that_waits_before_it_is_known_to_have_collected(tmp_path: Path) -> None:
    source = """\
import os, signal, time
import pytest

WORKER = os.getpid()

@pytest.mark.parametrize("number", range(12))
def test_it(number):
    if number == 0:
        os.kill(WORKER, signal.SIGKILL)
    end = time.monotonic() + 60
    while not os.path.exists("early") and time.monotonic() < end:
        time.sleep(0.02)
"""
    suite = write_files(tmp_path, {"test_a.py": source, "early.py": _EARLY})
    ended = run_pytest(
        suite, "--fkit", "-n2", "-p", "early", "--fkit-start-method=fork",
        env={"PYTHONPATH": "."},
    )  # fmt: skip
    assert (suite / "early").exists()
    assert "INTERNALERROR" not in ended.out
    outcomes = ended.outcomes
    assert outcomes.pop("test_a.py::test_it[0]") == "ERROR"
    assert len(outcomes) == 11
    assert set(outcomes.values()) == {"PASSED"}


# --- accounting ---------------------------------------------------------------------------------

_LOSES = """
import os
from pytest_fkit.protocol.border import ItemReported
from pytest_fkit.controller.workers.inbox import Inbox
from pytest_fkit.worker.reports.reports import LocalReports

add_told, log_report = Inbox.add_told, LocalReports.log_report

def kept(data):
    return data["when"] != "call" or "[2]" not in data["nodeid"]

def added(self, node, told):
    kinds = [each for each in told if not isinstance(each, ItemReported) or kept(each.data)]
    add_told(self, node, kinds)

def logged(self, item, data):
    if kept(data):
        log_report(self, item, data)

Inbox.add_told = added
if "PYTEST_XDIST_WORKER" not in os.environ:
    LocalReports.log_report = logged
"""


@pytest.mark.parametrize("workers", ["-n2", "-n0"])
def test_a_test_whose_call_nobody_heard_of_is_an_error_everywhere(
    tmp_path: Path, workers: str
) -> None:
    suite = write_files(tmp_path, {**_SUITE, "loses.py": _LOSES})
    ended = run_pytest(
        suite, "--fkit", workers, "-p", "loses", "--fkit-journal=run.jsonl", "--junitxml=run.xml",
        env={"PYTHONPATH": "."},
    )  # fmt: skip
    outcomes = ended.outcomes
    assert outcomes.pop("test_a.py::test_it[2]") == "ERROR"
    assert set(outcomes.values()) == {"PASSED"}
    assert "its setup was reported, its call was not" in ended.out
    assert ended.status == 1
    told = [json.loads(line) for line in (suite / "run.jsonl").read_text().splitlines()]
    verdicts = {each["test"]: each["outcome"] for each in told if each["event"] == "verdict"}
    assert len(verdicts) == 6
    assert {name for name, each in verdicts.items() if each == "error"} == {"test_a.py::test_it[2]"}
    assert 'errors="1"' in (suite / "run.xml").read_text()


@pytest.mark.parametrize("workers", ["-n1", "-n0"])
def test_what_another_plugin_ran_without_a_report_is_accounted_for(
    tmp_path: Path, workers: str
) -> None:
    conftest = """\
def pytest_runtest_protocol(item):
    return True if "[2]" in item.name else None
"""
    ended = run_pytest(
        write_files(tmp_path, {**_SUITE, "conftest.py": conftest}), "--fkit", workers
    )
    assert len(ended.outcomes) == 5
    assert set(ended.outcomes.values()) == {"PASSED"}
    assert ended.status == 0


# --- whom a dead worker's death is blamed on ----------------------------------------------------

_KILLS = """\
import os, signal, time
import pytest

WORKER = os.getpid()

@pytest.mark.parametrize("number", range(30))
def test_it(number):
    if number == 17:
        os.kill(WORKER, signal.SIGKILL)
        time.sleep(60)
"""


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("workers", ["-n1", "-n2"])
@pytest.mark.parametrize("isolation", ["function", "module", "session"])
def test_who_kills_the_worker_is_blamed_and_nobody_else(
    tmp_path: Path, isolation: str, workers: str
) -> None:
    suite = write_files(tmp_path, {"test_a.py": _KILLS})
    ended = run_pytest(
        suite, "--fkit", workers, f"--fkit-isolation={isolation}", "--fkit-start-method=fork",
        "--junitxml=run.xml",
    )  # fmt: skip
    outcomes = ended.outcomes
    assert len(outcomes) == 30
    assert [nodeid for nodeid, outcome in outcomes.items() if outcome != "PASSED"] == [
        "test_a.py::test_it[17]"
    ]
    assert ended.out.count("replacing crashed worker") == 1
    assert len(re.findall("<testcase ", (suite / "run.xml").read_text())) == 30
    assert ended.status == 1


_ENDS_WORKER = """\
import os

def pytest_runtest_logreport(report):
    if "PYTEST_XDIST_WORKER" in os.environ and report.failed:
        os._exit(1)
"""


@pytest.mark.parametrize("isolation", ["function", "session"])
def test_a_plugin_that_ends_its_worker_after_a_failure_loses_no_traceback(
    tmp_path: Path, isolation: str
) -> None:
    source = """\
import pytest
@pytest.mark.parametrize("number", range(9))
def test_it(number): assert number != 4, "cudaErrorIllegalAddress"
"""
    files = {"test_a.py": source, "conftest.py": _ENDS_WORKER}
    ended = run_pytest(
        write_files(tmp_path, files), "--fkit", "-n1", f"--fkit-isolation={isolation}"
    )
    reported = [(outcome, nodeid) for outcome, nodeid, _ in ended.reported]
    assert ("FAILED", "test_a.py::test_it[4]") in reported
    assert ("ERROR", "test_a.py::test_it[4]") in reported  # as xdist reports a dead worker
    others = [outcome for outcome, nodeid in reported if nodeid != "test_a.py::test_it[4]"]
    assert others == ["PASSED"] * 8
    assert "AssertionError: cudaErrorIllegalAddress" in ended.out


def test_what_plugins_before_xdist_change_arrives(tmp_path: Path) -> None:
    conftest = """\
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report):
    report.sections.append(("from a conftest", "changed in time"))
"""
    files = {"test_a.py": "def test_it(): assert 0\n", "conftest.py": conftest}
    ended = run_pytest(write_files(tmp_path, files), "--fkit", "-n1")
    assert "changed in time" in ended.out
