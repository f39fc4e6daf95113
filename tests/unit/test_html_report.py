"""What the report says, as values; tests/browser opens it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shlex
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from pytest_fkit.controller.reports.html_report import HtmlReport
from pytest_fkit.journal.command import main
from pytest_fkit.journal.events import FORMAT, SCHEMA
from pytest_fkit.journal.html.content import Fact, ReportContent, content
from pytest_fkit.journal.html.details import MOST_ATTEMPTS, command_of
from pytest_fkit.journal.html.packing import packed
from pytest_fkit.journal.html.page import MOST_CAUSES, page
from pytest_fkit.journal.html.readable import NAME_LIMIT, readable, readable_name
from pytest_fkit.journal.html.timeline import MOST_OF_ALL

RUN = {"event": "run", "wall": 100.0, "session": "a", "slices": {"gw0": ["0"], "gw10": ["1"]}}


def attempt(test: str, start: float, worker: str = "gw0", **more: Any) -> dict[str, Any]:
    return {
        "event": "attempt", "wall": start + 1, "test": test, "worker": worker, "start": start,
        "duration": 1.0, "phases": [], **more,
    }  # fmt: skip


def verdict(test: str, wall: float, outcome: str, **more: Any) -> dict[str, Any]:
    return {
        "event": "verdict", "wall": wall, "test": test, "worker": "gw0", "outcome": outcome,
        "reports": [], **more,
    }  # fmt: skip


def failure(message: str) -> dict[str, Any]:
    report = {"when": "call", "outcome": "failed", "duration": 0.1, "message": message,
              "text": f"E   {message}"}  # fmt: skip
    return {"message": message, "reports": [report]}


def outcomes(told: ReportContent) -> dict[str, str]:
    return {test.nodeid: test.outcome for test in told.tests}


def test_red_tests_come_first_and_are_grouped_by_cause() -> None:
    told = content(
        [
            RUN,
            attempt("ok", 101.0), verdict("ok", 102.0, "passed"),
            attempt("one", 102.0), verdict("one", 103.0, "failed", **failure("Error: 7 of 9")),
            attempt("two", 103.0, "gw10"),
            verdict("two", 104.0, "failed", worker="gw10", **failure("Error: 8 of 9")),
            {"event": "end", "wall": 105.0, "exitstatus": 1},
        ]
    )  # fmt: skip
    assert [test.nodeid for test in told.tests] == ["one", "two", "ok"]
    (cause,) = told.causes
    assert (cause.tests, cause.places) == ((0, 1), ("gw0 (GPU 0)", "gw10 (GPU 1)"))
    assert (told.red, told.heads[0].ended, told.heads[0].seconds) == (2, "exit status 1", 5.0)


@pytest.mark.parametrize(
    ("job", "link"), [("https://ci/1", "https://ci/1"), ("javascript:alert(1)", "")]
)
def test_a_run_says_where_it_comes_from(job: str, link: str) -> None:
    told = content([{**RUN, "commit": "0123456789abcdef", "branch": "main", "job": job}])
    assert told.heads[0].facts == (
        Fact("Commit", "0123456789ab, main"),
        Fact("CI job", job, link),
    )


def test_of_a_run_that_was_killed_all_tests_are_there() -> None:
    told = content(
        [
            RUN,
            {"event": "collection", "wall": 101.0, "worker": "gw0", "nodeids": ["x", "y", "z"]},
            attempt("x", 101.0), verdict("x", 102.0, "passed"),
            {"event": "start", "wall": 102.0, "test": "y", "worker": "gw0"},
            {"event": "report", "wall": 103.0, "test": "y", "worker": "gw0", "when": "setup",
             "outcome": "passed"},
        ]
    )  # fmt: skip
    assert outcomes(told) == {"x": "passed", "y": "unfinished", "z": "not run"}
    (running,) = next(each for each in told.tests if each.nodeid == "y").attempts
    assert running.attempt.is_cut_off
    assert (running.start, running.duration) == (2.0, 1.0)
    assert told.heads[0].is_cut_off
    page_of_y = next(each for each in told.details() if each["id"] == "y")
    assert page_of_y["attempts"][0]["cut"] is True
    assert [each["when"] for each in page_of_y["reports"]] == ["setup"]


def test_a_resumed_run_goes_on_where_the_first_was_cut_off() -> None:
    told = content(
        [
            RUN,
            {"event": "collection", "wall": 101.0, "worker": "gw0", "nodeids": ["x", "y"]},
            {"event": "start", "wall": 102.0, "test": "x", "worker": "gw0"},
            {**RUN, "wall": 9000.0},
            {"event": "collection", "wall": 9001.0, "worker": "gw0", "nodeids": ["x", "y"]},
            attempt("x", 9002.0), verdict("x", 9003.0, "passed"),
        ]
    )  # fmt: skip
    assert outcomes(told) == {"x": "passed", "y": "not run"}
    assert [(each.start, each.attempt.is_cut_off) for each in told.tests[1].attempts] == [
        (2.0, True),
        (5.0, False),
    ]
    assert told.timeline.starts == [[(0.0, 100.0), (3.0, 9000.0)]]


def test_retries_marks_and_lanes() -> None:
    told = content(
        [
            RUN,
            attempt("x", 101.0, again=True, category="ECC"),
            {"event": "retried", "wall": 102.0, "test": "x", "worker": "gw0", "to": "gw10",
             "to_gpus": ["1"], "category": "ECC", "attempt": 1},
            {"event": "retired", "wall": 102.5, "worker": "gw0", "reason": "sick"},
            {"event": "xid", "wall": 102.6, "xid": 79, "gpus": ["0"]},
            {"event": "gpus", "wall": 102.7, "used": {"0": {"memory": 5 << 20}}},
            attempt("x", 103.0, "gw10", attempt=2, ending={"type": "Signaled", "title": "SIGBUS"}),
            verdict("x", 104.0, "error", attempt=2, worker="gw10"),
        ]
    )  # fmt: skip
    (test,) = told.tests
    assert (test.number, test.attempt) == (2, 1)
    assert [(each.lane, each.text) for each in told.timeline.marks] == [
        (0, "retired: sick"), (0, "Xid 79 on GPU 0"), (1, "SIGBUS"),
    ]  # fmt: skip
    ((at, size),) = told.timeline.memory[0].samples
    assert (round(at, 3), size) == (2.7, 5 << 20)
    first, second = next(told.details())["attempts"]
    assert (first["to"], first["category"]) == ("gw10 (GPU 1)", "ECC")
    assert (second["where"], second["ending"]) == ("gw10 (GPU 1)", "SIGBUS")


def test_samples_of_many_gpus_are_thinned_and_none_of_their_peaks_is_lost() -> None:
    gpus = [str(number) for number in range(50)]
    samples: list[dict[str, Any]] = [
        {"event": "gpus", "wall": 101.0 + at, "used": {gpu: {"memory": 2**20} for gpu in gpus}}
        for at in range(4000)
    ]
    samples[1234]["used"]["7"] = {"memory": 2**30}
    index = unpacked(packed(content([RUN, *samples])).lists)
    assert [len(each) for each in index["moments"]] == [2000]  # which all have in common
    assert {each["at"] for each in index["gpus"]} == {0}
    assert sum(len(each["memory"]) for each in index["gpus"]) <= MOST_OF_ALL
    assert [max(each["memory"]) for each in index["gpus"]] == [
        1024 if gpu == "7" else 1 for gpu in gpus
    ]


def _repetition(number: int, worker: str, outcome: str, **more: Any) -> list[dict[str, Any]]:
    at = 101.0 + number
    about = {"number": number, "seed": number, "outcome": outcome, **more}
    begins = {"event": "start", "wall": at, "test": "a.py::x", "worker": worker}
    return [begins, attempt("a.py::x", at, worker, attempt=1, repetition=about)]


def test_each_repetition_has_an_outcome_of_its_own() -> None:
    pytest.importorskip("jinja2")
    outcomes = ["passed", "failed", "passed", *["passed"] * (MOST_ATTEMPTS - 4), "error"]
    repeated = [
        each
        for number, outcome in enumerate([*outcomes, "passed"])
        for each in _repetition(number, "gw0" if number % 2 else "gw10", outcome, fresh=True)
    ]
    told = {"times": MOST_ATTEMPTS + 1, "failed": 2, "first": 1, "stands": 1, "seed": 7,
            "first_fresh": True, "fresh": MOST_ATTEMPTS + 1}  # fmt: skip
    end = verdict("a.py::x", 999.0, "failed", repeated=told, **failure("Error: 1"))
    run = {**RUN, "arguments": ["--fkit-repeat=101", "-x", "--lf"]}
    found = content([run, *repeated, end])
    (test,) = found.tests
    # What another worker ran last is not running for ever.
    assert test.number == MOST_ATTEMPTS + 1
    assert test.message == "failed 2 of 101 (2 %, 95 %: 0.2 to 7)  Error: 1"
    index = unpacked(packed(found).lists)
    names = [index["outcomes"][each] for each in index["attempts"]["outcome"]]
    assert sorted(names) == sorted([*outcomes, "passed"])
    page_of_it = next(found.details())
    assert (
        page_of_it["several"]
        == f"{MOST_ATTEMPTS} of {MOST_ATTEMPTS + 1} repetitions, failures first"
    )
    titles = [each["title"] for each in page_of_it["attempts"]]
    assert titles[1] == "Repetition 2 in a fresh interpreter"
    assert f"Repetition {MOST_ATTEMPTS} in a fresh interpreter" in titles
    assert page_of_it["repeated"][0] == "failed 2 of 101 (2 %, 95 %: 0.2 to 7)"
    assert page_of_it["command"] == (
        "PYTHONHASHSEED=7 pytest a.py::x --fkit-repeat=1 --fkit-repeat-seed=7"
    )


def test_repetitions_of_a_run_that_was_killed_count() -> None:
    planned = {"event": "collection", "wall": 100.5, "worker": "gw0", "nodeids": ["a.py::x"]}
    found = content([RUN, planned, *_repetition(0, "gw0", "failed")])
    (test,) = found.tests
    assert test.outcome == "unfinished"
    assert test.message.startswith("failed 1 of 1 (100 %, 95 %: 2.5 to 100)  the journal was cut")


def test_without_the_extra_its_command_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(pytest.UsageError, match=r"pip install 'pytest-forkit\[html\]'"):
        HtmlReport(tmp_path / "run.jsonl", tmp_path / "report.html")
    run = {**RUN, "format": FORMAT, "schema": SCHEMA}
    (tmp_path / "run.jsonl").write_text(json.dumps(run) + "\n")
    assert main(["html", str(tmp_path / "run.jsonl")]) == 2
    assert "pip install 'pytest-forkit[html]'" in capsys.readouterr().err


def unpacked(text: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(text)))


def test_what_would_not_fit_is_left_out_and_said() -> None:
    events: list[dict[str, Any]] = [RUN]
    for number in range(2000):
        text = "".join(hashlib.sha512(f"{number} {at}".encode()).hexdigest() for at in range(8))
        reports = [{"when": "call", "outcome": "passed", "duration": 0.1,
                    "sections": [["out", text]]}]  # fmt: skip
        events += [attempt(f"t{number}", 101.0), verdict(f"t{number}", 102.0, "passed")]
        events[-1]["reports"] = reports
    told = content(events)
    whole, part = packed(told), packed(told, limit=600_000)
    assert whole.left_out == 0
    assert 0 < part.left_out < 2000
    index = unpacked(part.lists)
    assert index["told"] == 2000 - part.left_out
    details = [each for chunk in part.chunks for each in unpacked(chunk)]
    assert len(details) == index["told"]
    assert len(part.lists) + sum(map(len, part.chunks)) < 600_000


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x1b[0m", "ab"), ("10%\r20%\r\n", "10%\n20%\n"), ("\0\x07\t", "\\x00\\x07\t"),
        ("\u202eabc", "\\u202eabc"), ("\ud800", "\\ud800"), ("café ✓", "café ✓"),
        ("\x1b]8;;http://x\x07link\x1b]8;;\x07", "link"),
    ],
)  # fmt: skip
def test_what_can_not_be_seen_is_escaped(text: str, shown: str) -> None:
    assert readable(text) == shown


def test_long_names_stay_different() -> None:
    one, other = (readable_name("x" * 50_000 + end) for end in "ab")
    assert one != other
    assert max(len(one), len(other)) <= NAME_LIMIT
    assert readable_name("x" * 25_000 + "a" + "y" * 300) != readable_name("x" * 25_000 + "y" * 301)


def test_the_command_runs_one_test_as_the_run_did() -> None:
    run = {
        "rootdir": "/r/tests", "directory": "/r",
        "arguments": ["-c", "tests/x.ini", "-n", "4", "--fkit", "tests", "-k", "a", "--lf",
                      "--fkit-html=r.html", "/r/tests/sub/test_a.py::test_b", "-p", "plugin"],
    }  # fmt: skip
    command = command_of(run, ["sub/test_a.py::test_b", "sub/test_a.py::test_c"])
    assert shlex.split(command.of("sub/test_a.py::test_c[a b]")) == [
        "pytest", "-c", "tests/x.ini", "--fkit", "-p", "plugin", "tests/sub/test_a.py::test_c[a b]",
    ]  # fmt: skip


def test_a_page_names_so_many_causes_and_no_more() -> None:
    pytest.importorskip("jinja2")
    events: list[dict[str, Any]] = [RUN]
    for number in range(MOST_CAUSES + 7):
        name = f"{chr(97 + number % 26)}{chr(97 + number // 26)}"
        events.append(verdict(f"t{number}", 101.0, "failed", **failure(f"Error: {name}")))
    text = page(events).decode()
    assert text.count('<b class="number"') == MOST_CAUSES
    assert "7 causes of fewer tests are only in the table" in text


def test_the_page_is_text_and_may_request_nothing() -> None:
    pytest.importorskip("jinja2")
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    events = [
        {**RUN, "machine": {"host": evil}, "arguments": [evil]},
        attempt(f"a.py::t[{evil}]", 101.0),
        verdict(f"a.py::t[{evil}]", 102.0, "failed", **failure(f"Error: {evil}")),
    ]
    text = page(events).decode()
    assert "<img" not in text
    assert text.count("<script>alert") == 0
    assert html.escape(evil, quote=False) in text.replace("&#34;", '"')
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert html.unescape(policy).startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", text)
