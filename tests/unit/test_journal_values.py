"""What a journal keeps of reports, how verdicts follow, and what a timeline makes of odd times."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pytest_fkit.controller.reports.reporting import Happened, Reporting
from pytest_fkit.controller.reports.step_summary import markdown
from pytest_fkit.journal.added import restored
from pytest_fkit.journal.attempts import kept, verdict
from pytest_fkit.journal.events import TEXT_LIMIT, capped, encode, event, plain
from pytest_fkit.journal.files import AppendedFile
from pytest_fkit.journal.history import history
from pytest_fkit.journal.recorder import Recorder
from pytest_fkit.journal.trace import TraceFile, lines
from pytest_fkit.protocol.border import ItemAttempt, ItemFinished, ItemStarted, Reported
from pytest_fkit.protocol.endings import Finished
from pytest_fkit.protocol.event_file import ReportFacts, add_facts


def report(when: Any, outcome: Any = "passed", **more: Any) -> pytest.TestReport:
    return pytest.TestReport("a.py::b", ("a.py", 0, "b"), {}, outcome, None, when, **more)


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        (["setup passed", "call passed", "teardown passed"], "passed"),
        (["setup passed", "call failed", "teardown passed"], "failed"),
        (["setup failed", "teardown passed"], "error"),
        (["setup passed", "call passed", "teardown failed"], "error"),
        (["setup passed", "call failed", "teardown failed"], "error"),
        (["setup skipped", "teardown passed"], "skipped"),
        (["setup passed", "call skipped xfail", "teardown passed"], "xfailed"),
        (["setup passed", "call passed xfail", "teardown passed"], "xpassed"),
        (["setup passed", "call failed fkit_death", "teardown passed"], "error"),
        (["setup passed", "call skipped xfail fkit_death", "teardown passed"], "xfailed"),
        (["setup passed", "call rerun", "setup passed", "call passed"], "passed"),
        (["??? failed fkit_death"], "error"),
    ],
)
def test_the_verdict_is_the_worst_that_was_said(reports: list[str], expected: str) -> None:
    said: list[dict[str, Any]] = []
    for text in reports:
        when, outcome, *more = text.split()
        said.append({"when": when, "outcome": outcome, **dict.fromkeys(more, "x")})
    assert verdict(said) == expected


def test_a_report_is_kept_without_what_is_empty() -> None:
    assert set(kept(report("call"))) <= {"when", "outcome", "duration", "start"}
    full = kept(
        report("call", sections=[("out", "text")], user_properties=[("p", object)], wasxfail="why")
    )
    assert full["sections"] == [["out", "text"]]
    assert full["properties"] == [["p", "<class 'object'>"]]
    assert full["xfail"] == "why"


def test_what_plugins_added_is_kept_with_its_type() -> None:
    given = {
        "text": "x", "yes": True, "none": None, "pair": (1, "a"), "names": {"x"},
        "by": {"k": [1.5]}, "raw": b"x", "keys": {1: 2},
        "object": object(), "nan": float("nan"), "huge": 2**70,
    }  # fmt: skip
    made = report("call", worker_id="gw0", fkit=ReportFacts(worker="gw0"), **given)
    found = json.loads(json.dumps(kept(made)["added"]))
    assert not {"worker_id", "fkit"} & found.keys()
    assert restored(found) == {
        **given, "raw": b"", "keys": {}, "object": None, "nan": 0.0, "huge": 0,
    }  # fmt: skip
    assert restored({"odd": [], "other": ["set", 3], "strange": [["x"], 1]}) == {
        "other": set(),
        "strange": None,
    }


def test_a_long_text_loses_its_middle() -> None:
    assert capped("x" * TEXT_LIMIT) == "x" * TEXT_LIMIT
    cut = capped("a" * TEXT_LIMIT + "b" * TEXT_LIMIT)
    assert cut.startswith("a" * 1000)
    assert cut.endswith("b" * 1000)
    assert f"[... {TEXT_LIMIT} characters cut ...]" in cut


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True), (1, 1), (2**70, hex(2**70)), (1.5, 1.5), (float("nan"), "nan"),
        ("x", "x"), (None, None), ([1], "[1]"),
    ],
)  # fmt: skip
def test_values_are_those_that_json_has(value: object, expected: object) -> None:
    assert plain(value) == expected


def test_a_line_is_ascii_whatever_it_says() -> None:
    line = encode(event("x", text="\ud800\u2028\n\0é"))
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert json.loads(line)["text"] == "\ud800\u2028\n\0é"


ATTEMPT = ItemAttempt("a.py::b", 1.0, Finished(), (("setup", 1.0, 0.1, "passed"),), pid=5, left=1)


def test_a_test_that_is_over_is_told_by_attempt_and_verdict_alone() -> None:
    recorder = Recorder()
    told: list[dict[str, Any]] = []
    recorder.sinks.append(told.extend)
    recorder.record(
        "gw0",
        [
            ItemStarted("a.py::b", ("a.py", 0, "b")),
            Reported(0, report("setup")),
            Reported(0, report("call")),
            ATTEMPT,
            Reported(0, report("teardown")),
            ItemFinished("a.py::b", ("a.py", 0, "b")),
        ],
    )
    assert [each["event"] for each in told] == ["attempt", "verdict"]
    assert [each["when"] for each in told[1]["reports"]] == ["setup", "call", "teardown"]


def test_a_test_that_is_not_over_is_told_as_far_as_it_is_known() -> None:
    recorder = Recorder()
    told: list[dict[str, Any]] = []
    recorder.sinks.append(told.extend)
    recorder.record("gw0", [ItemStarted("a.py::b", ("a.py", 0, "b"))])
    recorder.record("gw0", [Reported(0, report("setup"))])
    recorder.record("gw1", [ItemStarted("a.py::b", ("a.py", 0, "b"))])
    assert [(each["event"], each["worker"]) for each in told] == [
        ("start", "gw0"),
        ("report", "gw0"),
        ("start", "gw1"),
    ]


def test_a_clock_that_is_set_back_does_no_harm_to_the_timeline() -> None:
    run = event("run", session="a")
    attempts = [
        event(
            "attempt", worker="gw0", test=f"t{number}", start=start, duration=1.0,
            phases=[
                {"when": "setup", "start": start, "duration": 0.9, "outcome": "passed"},
                {"when": "call", "start": start - 5, "duration": 0.9, "outcome": "passed"},
            ],
        )
        for number, start in enumerate((101.0, 99.0, 101.5))
    ]  # fmt: skip
    events = json.loads(b"".join(lines([{**run, "wall": 100.0}, *attempts])))["traceEvents"]
    spans = [(each["ts"], each["ts"] + each["dur"]) for each in events if each.get("cat") == "test"]
    assert spans == [(1000000, 2000000), (2000000, 2000000), (2000000, 2500000)]
    for each in events:
        if each.get("cat") == "phase":
            assert any(
                begin <= each["ts"] and each["ts"] + each["dur"] <= end for begin, end in spans
            )


def test_a_trace_lacks_no_more_than_the_last_second(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    file = TraceFile(AppendedFile.open(path))

    def happens(name: str, mono: float, **fields: Any) -> None:
        file.add([{"event": name, "wall": 100.0 + mono, "mono": mono, **fields}])

    happens("run", 1.0, session="a")
    happens("worker_up", 1.5, worker="gw0")
    happens("start", 1.9, worker="gw0", test="a")
    assert b"worker up" not in path.read_bytes()
    happens("start", 2.0, worker="gw0", test="b")
    assert b"worker up" in path.read_bytes()
    happens("worker_down", 2.1, worker="gw0")
    happens("end", 2.2)
    names = [each["name"] for each in json.loads(path.read_bytes())["traceEvents"]]
    assert names[-2:] == ["worker up", "worker down"]


def test_a_session_knows_what_it_did_not_run() -> None:
    told = history(
        [
            event("run", session="a"),
            event("collection", worker="gw0", tests=2, nodeids=["x", "y"]),
            event("start", test="y", worker="gw0"),
            event("attempt", test="x", worker="gw0"),
            event("verdict", test="x", worker="gw0", outcome="passed"),
        ]
    )
    assert told.not_run() == [(0, "y")]
    assert list(told.sessions[0].running) == [("y", "gw0")]
    assert told.sessions[0].end is None


def test_what_made_tests_share_a_process_is_one_cause_for_all_workers(
    pytestconfig: pytest.Config,
) -> None:
    reporting = Reporting(pytestconfig)
    for cause in (
        "session-scoped fixture 'pool' (a.py:4): descriptor 11: /tmp/runtime-77, open for writing",
        "session-scoped fixture 'pool' (a.py:4): descriptor 9: /tmp/runtime-78, open for writing",
        "session-scoped fixture 'pool' (a.py:9): descriptor 9: /tmp/runtime-78, open for writing",
    ):
        report = pytest.TestReport("a.py::b", ("a.py", 0, "b"), {}, "passed", None, "call")
        add_facts(vars(report), shared=cause)
        reporting.pytest_runtest_logreport(report)
    assert list(reporting.happened.shared.values()) == [2, 1]


def test_markdown_of_nothing_is_nothing() -> None:
    assert list(markdown(Happened())) == []


def test_markdown_names_everything() -> None:
    happened = Happened(
        imports=[("m.py", "exit status 3", "")],
        leftovers=[("a.py::b", ["pid 1: x", "pid 2: y"])],
        shared=Counter({"a cause": 2}),
        scarce=Counter({("Need at least 4 GPUs", 4): 1}),
        kept=[("gw0 (GPU 1)", "probe: ECC")],
        in_vain=[("a.py::c", "failed, 2 attempts", "attempt 1 on gw0 (GPU 1): ECC")],
    )
    text = "\n".join(markdown(happened))
    assert "| `m.py` | `exit status 3` |  |  |" in text
    assert "| `a.py::b` | `pid 1: x`<br>`pid 2: y` |" in text
    assert "| `a.py::c` | failed, 2 attempts | `attempt 1 on gw0 (GPU 1): ECC` |" in text
    assert "2 tests shared a process, because of `a cause`" in text
    assert "| gw0 (GPU 1) | `probe: ECC` |" in text
    assert (
        "1 test skipped for want of 4 GPUs (--fkit-gpus-per-worker=4 or --fkit-widen): "
        "`Need at least 4 GPUs`"
    ) in text
