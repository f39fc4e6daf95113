"""GPU errors, retries and retirements, as they are recorded, drawn and summed up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chrome_trace
import pytest

from pytest_fkit.journal.events import event
from pytest_fkit.journal.history import history
from pytest_fkit.journal.recorder import GpuUsage, Recorder
from pytest_fkit.journal.summary import summary, table
from pytest_fkit.journal.trace import lines
from pytest_fkit.protocol.border import ItemAttempt, ItemFinished, ItemStarted, Reported, Told
from pytest_fkit.protocol.endings import Finished

LOCATION = ("a.py", 0, "b")


def report(when: Any, outcome: Any = "passed", text: str | None = None) -> pytest.TestReport:
    return pytest.TestReport("a.py::b", LOCATION, {}, outcome, text, when)


def attempt(start: float) -> ItemAttempt:
    phases = (("call", start, 0.5, "passed"),)
    return ItemAttempt("a.py::b", start, Finished(), phases, pid=5, left=1)


def told(start: float, outcome: str) -> list[Told]:
    """What a worker says of a test."""
    return [
        ItemStarted("a.py::b", LOCATION),
        Reported(0, report("setup")),
        Reported(0, report("call", outcome, "CUDA error" if outcome == "failed" else None)),
        attempt(start),
        Reported(0, report("teardown")),
        ItemFinished("a.py::b", LOCATION),
    ]


@pytest.fixture
def recorded() -> list[dict[str, Any]]:
    """A run in which a test is retried and its worker retired."""
    events: list[dict[str, Any]] = []
    recorder = Recorder()
    recorder.sinks.append(events.extend)
    recorder.add(event("run", session="s", format="pytest-fkit journal", schema="1.0"))
    began = events[0]["wall"]
    recorder.worker_up("gw0", 10, ["0", "1"])
    recorder.worker_up("gw2", 12, ["4"])
    recorder.erred("gw2", "a.py::b", "out of memory", "CUDA out of memory")
    failed = told(began + 1, "failed")
    recorder.retried(("gw2", ["4"]), "a.py::b", failed, "out of memory", ("gw0", ["0", "1"]))
    recorder.about_gpus("probed", "gw2", answer="sick", reason="GPU 4: no answer")
    recorder.about_gpus("retired", "gw2", reason="3 GPU errors in a row")
    recorder.record("gw0", told(began + 2, "passed"))
    recorder.about_gpus("readmitted", "gw2", reason="healthy again")
    recorder.add(event("end", exitstatus=0))
    return events


def of(events: list[dict[str, Any]], name: str) -> dict[str, Any]:
    [found] = [each for each in events if each["event"] == name]
    return {key: value for key, value in found.items() if key not in ("event", "wall", "mono")}


def test_each_is_an_event_that_names_the_gpus(recorded: list[dict[str, Any]]) -> None:
    assert of(recorded, "gpu_error") == {
        "test": "a.py::b", "worker": "gw2", "gpus": ["4"], "category": "out of memory",
        "message": "CUDA out of memory",
    }  # fmt: skip
    assert of(recorded, "retried") == {
        "test": "a.py::b", "attempt": 1, "category": "out of memory", "worker": "gw2",
        "gpus": ["4"], "to": "gw0", "to_gpus": ["0", "1"],
    }  # fmt: skip
    assert of(recorded, "probed") == {
        "worker": "gw2", "gpus": ["4"], "answer": "sick", "reason": "GPU 4: no answer",
    }  # fmt: skip
    assert of(recorded, "retired") == {
        "worker": "gw2", "gpus": ["4"], "reason": "3 GPU errors in a row",
    }  # fmt: skip
    assert of(recorded, "readmitted")["reason"] == "healthy again"


def test_attempts_are_counted_over_workers_and_one_verdict_is_given(
    recorded: list[dict[str, Any]],
) -> None:
    first, second = (each for each in recorded if each["event"] == "attempt")
    assert (first["attempt"], first["worker"], first["gpus"]) == (1, "gw2", ["4"])
    assert (first["again"], first["category"]) == (True, "out of memory")
    assert (second["attempt"], second["worker"], second["gpus"]) == (2, "gw0", ["0", "1"])
    assert not {"again", "category"} & second.keys()
    verdict = of(recorded, "verdict")
    assert (verdict["outcome"], verdict["attempt"], verdict["worker"]) == ("passed", 2, "gw0")
    assert [each["outcome"] for each in verdict["reports"]] == ["passed"] * 3


def test_what_a_worker_said_before_it_was_held_back_counts() -> None:
    events: list[dict[str, Any]] = []
    recorder = Recorder()
    recorder.sinks.append(events.extend)
    first, second = told(1.0, "failed")[:2], told(1.0, "failed")[2:]
    recorder.record("gw0", first)  # a long test: its first reports came alone
    recorder.retried(("gw0", []), "a.py::b", second, "out of memory", ("gw1", []))
    recorder.record("gw1", told(2.0, "failed"))
    assert [(each["event"], each["worker"]) for each in events] == [
        ("start", "gw0"), ("report", "gw0"), ("attempt", "gw0"), ("retried", "gw0"),
        ("attempt", "gw1"), ("verdict", "gw1"),
    ]  # fmt: skip
    assert history([event("run", session="s"), *events]).sessions[0].running == {}
    # A second test of the same name, in another run of the suite, begins anew.
    recorder.record("gw1", told(3.0, "passed"))
    assert events[-1]["attempt"] == 1


def test_the_last_worker_is_named_though_it_is_not_retired() -> None:
    events: list[dict[str, Any]] = []
    recorder = Recorder()
    recorder.sinks.append(events.extend)
    recorder.owns("gw0", ["3"])
    recorder.about_gpus("not_retired", "gw0", reason="probe: ECC")
    [line] = history([event("run", session="s"), *events]).sessions[0].retirement_lines()
    assert line == "gw0 (GPU 3) was not retired, since no other was left: probe: ECC"


def test_the_trace_has_an_arrow_and_an_instant_for_each(
    recorded: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "trace.json").write_bytes(b"".join(lines(recorded)))
    trace = chrome_trace.load(tmp_path / "trace.json")
    first, second = chrome_trace.slices(trace, "test")
    [start], [end] = ([each for each in trace if each["ph"] == what] for what in "sf")
    assert (start["pid"], start["ts"]) == (first["pid"], first["ts"] + first["dur"] - 1)
    assert (end["pid"], end["ts"]) == (second["pid"], second["ts"])
    instants = {each["name"]: each["args"] for each in trace if each.get("cat") == "gpu"}
    assert instants == {
        "gpu error: out of memory": {
            "test": "a.py::b", "message": "CUDA out of memory", "gpus": "4",
        },
        "probed: sick": {"reason": "GPU 4: no answer", "gpus": "4"},
        "retired": {"reason": "3 GPU errors in a row", "gpus": "4"},
        "readmitted": {"reason": "healthy again", "gpus": "4"},
    }  # fmt: skip


def test_an_arrow_never_leads_back_in_time(tmp_path: Path) -> None:
    run = {**event("run", session="a"), "wall": 100.0}
    attempts = [
        event("attempt", worker=worker, test="t", start=start, duration=1.0, again=True)
        for worker, start in (("gw0", 105.0), ("gw1", 101.0), ("gw1", 103.0))
    ]
    (tmp_path / "trace.json").write_bytes(b"".join(lines([run, *attempts])))
    arrows = [each for each in chrome_trace.load(tmp_path / "trace.json") if each["ph"] == "f"]
    assert [each["ts"] for each in arrows] == [3_000_000]


def test_the_summary_names_retries_and_retirements(recorded: list[dict[str, Any]]) -> None:
    said = list(summary(history(json.loads(json.dumps(recorded)))))
    assert said[-4:] == [
        "1 test with more than one attempt:",
        "  passed after 2 attempts  a.py::b  out of memory on gw2 (GPU 4), then gw0 (GPUs 0,1)",
        "gw2 (GPU 4) was retired: 3 GPU errors in a row",
        "gw2 (GPU 4) was readmitted: healthy again",
    ]
    header, row = table(history(recorded))
    values = dict(zip(header.strip().split(","), row.strip().split(",")))
    assert (values["attempt"], values["worker"]) == ("2", "gw0")


def test_older_journals_say_nothing_of_it() -> None:
    verdict = event("verdict", test="x", worker="gw0", outcome="passed")
    assert "attempt" not in "".join(summary(history([event("run", session="a"), verdict])))


def test_a_peak_is_that_of_all_gpus_together_while_the_test_ran() -> None:
    usage = GpuUsage()
    for wall, first, second in ((1, 10, 0), (2, 30, 5), (3, 20, 20), (4, 5, 90), (5, 1, 1)):
        usage.add(wall, {"0": {"memory": first}, "1": {"memory": second}, "2": {"utilisation": 0}})
    assert usage.peak(["0", "1"], 2.5, 3.5) == 40  # what held at its begin counts
    assert usage.peak(["0", "1"], 2.5, 2.8) == 35
    assert usage.peak(["0"], 2.5, 3.5) == 30
    assert usage.peak(["0", "1"], 1.5, 9.0) == 95
    assert usage.peak(["0"], 6.0, 7.0) == 1
    assert usage.peak(["0"], 0.1, 0.9) is None  # nobody had looked
    assert usage.peak(["2"], 1.0, 5.0) is None
    assert usage.peak([], 1.0, 5.0) is None
