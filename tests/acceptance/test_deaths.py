"""Every way a test can end costs one verdict, which explains itself."""

from __future__ import annotations

import re
import resource
import signal
from pathlib import Path

import pytest
from inner import run_pytest, write_files
from recorded_runs import SUITES, Report, Run, new_suite

_TEXT = (SUITES / "deaths.py").read_text()
_FILE = "tests/test_deaths.py"

_SPARED = resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 1280
"""Whether the hard limit leaves room for our descriptors where the customary loops spare them."""


def _line(mark: str) -> int:
    """The line of the inner suite that ends with the comment `# here: <mark>`."""
    lines = _TEXT.splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if line.endswith(f"# here: {mark}")]
    return number


@pytest.fixture(scope="module")
def with_workers(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = new_suite(tmp_path_factory.mktemp("workers"), tests__test_deaths=_TEXT)
    return Run(directory, "--fkit", "-n2", "-rA")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = new_suite(tmp_path_factory.mktemp("alone"), tests__test_deaths=_TEXT)
    return Run(directory, "--fkit", "-n0", "-rA")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = new_suite(tmp_path_factory.mktemp("together"), tests__test_deaths=_TEXT)
    return Run(directory, "--fkit", "-n1", "--fkit-isolation=session", "-rA")


@pytest.fixture(params=["with_workers", "alone", "together"])
def run(request: pytest.FixtureRequest) -> Run:
    result = request.getfixturevalue(request.param)
    assert isinstance(result, Run)
    return result


# name: (title, where, phase)
_DEATHS: dict[str, tuple[str, str, str]] = {
    "test_segv": ("SIGSEGV", "test_segv", "call"),
    "test_abrt": ("SIGABRT", "test_abrt", "call"),
    "test_fatal_error": (
        "SIGABRT: Fatal Python error: said by C",
        "test_fatal_error",
        "call",
    ),
    "test_bus": ("SIGBUS", "test_bus", "call"),
    "test_fpe": ("SIGFPE", "test_fpe", "call"),
    "test_ill": ("SIGILL", "test_ill", "call"),
    "test_kill": ("SIGKILL", "", "call"),
    "test_term": ("SIGTERM", "test_term", "call"),
    "test_usr1": ("SIGUSR1", "", "call"),
    "test_thread": ("SIGSEGV", "crash", "call"),
    "test_setup": ("SIGSEGV", "dies_in_setup", "setup"),
    "test_teardown": ("SIGSEGV", "dies_in_teardown", "teardown"),
    "test_teardown_after_failure": ("SIGSEGV", "dies_in_teardown", "teardown"),
    "test_atexit": ("SIGSEGV in an exit handler", "crash", "teardown"),
    "test_setup_method": ("SIGSEGV", "setup_method", "setup"),
    "test_exit_0": ("exit status 0", "", "call"),
    "test_exit_3": ("exit status 3", "", "call"),
    "test_execv": ("exit status 0", "", "call"),
    "test_capsys": ("SIGSEGV", "test_capsys", "call"),
    "test_capfd": ("SIGSEGV", "test_capfd", "call"),
    "test_kills_group": ("SIGKILL", "", "call"),
    "test_closes_everything": (
        "lost: it closed the descriptor by which its reports are sent",
        "",
        "call",
    ),
    "test_kills_parent": (
        "lost: its host process was ended by SIGKILL while the test was running",
        "",
        "call",
    ),
    "test_xfail_raises": ("SIGSEGV", "crash", "call"),
    "test_xfail_off": ("SIGSEGV", "crash", "call"),
    "test_add_marker_raises": ("SIGSEGV", "crash", "call"),
}

_FUNCTIONS = {"test_setup_method": "TestXunit::test_setup_method"}


def _expected(run: Run, name: str) -> tuple[str, str, str]:
    title, where, phase = _DEATHS[name]
    # What runs a test in a shared process is the child of the keeper.
    return title.replace("host", "keeper") if _shares(run) else title, where, phase


def _shares(run: Run) -> bool:
    return run.directory.name.startswith("together")


_BY_RUN = [
    (run, name)
    for run in ("with_workers", "alone", "together")
    for name in _DEATHS
    # Exit handlers run when the process ends, which others share there.
    if (run, name) != ("together", "test_atexit")
]


@pytest.mark.parametrize(("run", "name"), _BY_RUN, indirect=["run"])
def test_death_is_one_error_in_its_phase(run: Run, name: str) -> None:
    title, where, phase = _expected(run, name)
    nodeid = f"{_FILE}::{_FUNCTIONS.get(name, name)}"
    place = f" at {_FILE}:{_line(where)} in {where}" if where else ""
    assert [line for line in run.summary(name) if line.startswith("ERROR")] == [
        f"ERROR {nodeid} - {title}{place}"
    ]
    deaths = [report for report in run.of(name) if "the test process" in report.text]
    (report,) = deaths
    assert (report.when, report.outcome) == (phase, "failed")
    assert re.search(r"^reproduce: pytest .*--fkit .*" + re.escape(nodeid), report.text, re.M)
    worker = "main" if run.directory.name.startswith("alone") else r"gw[01]"
    shown = "exit handlers, after the test" if "exit handler" in title else phase
    assert re.search(
        rf"^phase {shown}, \d+\.\d\d s .*; worker {worker}, pid \d+$", report.text, re.M
    )


@pytest.mark.parametrize(("run", "name"), _BY_RUN, indirect=["run"])
def test_death_is_exactly_one_error_in_junit(run: Run, name: str) -> None:
    title, _, phase = _expected(run, name)
    cases = run.junit(name)
    # An error after a failure is a test case of its own, as in plain pytest.
    assert len(cases) == (2 if name == "test_teardown_after_failure" else 1)
    (error,) = [error for case in cases for error in case.findall("error")]
    assert error.get("message").startswith(f"died in {phase}: {title}")
    assert "the test process" in error.text
    failures = 1 if name == "test_teardown_after_failure" else 0
    assert sum(len(case.findall("failure")) for case in cases) == failures


@pytest.mark.parametrize("name", [name for name in _DEATHS if _DEATHS[name][0].startswith("SIG")])
def test_signal_is_named_with_its_number(with_workers: Run, name: str) -> None:
    signame = _DEATHS[name][0].split()[0].rstrip(":")
    number = signal.Signals[signame].value
    (report,) = [each for each in with_workers.of(name) if "the test process" in each.text]
    assert f"the test process was ended by {signame} (signal {number})" in report.text


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("test_kill", "SIGKILL ends a process at once"),
        ("test_usr1", "Python's fault handler does not handle SIGUSR1"),
        ("test_exit_0", "a process that exits by itself"),
        ("test_execv", "a process that exits by itself"),
        ("test_closes_everything", "Python did not crash in it"),
    ],
)
def test_death_without_a_stack_says_why(run: Run, name: str, why: str) -> None:
    assert f"no Python stack: {why}" in run.bad(name).text


def test_native_stack_overflow_is_a_segmentation_fault(run: Run) -> None:
    (line,) = run.summary("test_stack_overflow")
    assert re.match(rf"ERROR {_FILE}::test_stack_overflow - SIGSEGV at {_FILE}:\d+ in again$", line)


def test_crashing_thread_comes_first(run: Run) -> None:
    text = run.bad("test_thread").text
    _, crashing, *others = re.split(r"^(?:Current t|T)hread .*:$", text, flags=re.M)
    assert text.index("\nCurrent thread ") < text.index("\nThread ")
    assert f"{_FILE}:{_line('crash')}: in crash\n" in crashing
    assert any("in test_thread\n" in other for other in others)


def test_terminal_shows_the_frames_of_the_suite_with_source_lines(run: Run) -> None:
    head = next(i for i, line in enumerate(run.lines) if "ERROR at call of test_abrt" in line)
    (began,) = [i for i, line in enumerate(run.lines[head : head + 6]) if line.startswith("phase")]
    shown = run.lines[head + began + 2 : head + began + 8]
    assert shown[:-1] == [
        f"{_FILE}:{_line('test_abrt')}: in test_abrt",
        "    def test_abrt() -> None:",
        ">       os.abort()  # here: test_abrt",
        "E       SIGABRT",
        "",
    ]
    assert re.fullmatch(r"… \d+ frames of pytest", shown[-1])
    # All of it is in the file for machines.
    text = run.junit("test_abrt")[0].find("error").text
    assert ">       os.abort()  # here: test_abrt\n" in text
    assert len(re.findall(r"^\S*_pytest/\S+:\d+: in ", text, re.M)) > 3


def test_stack_ends_where_pytest_begins(run: Run) -> None:
    text = run.bad("test_segv").text
    assert f":{_line('test_segv')}: in test_segv" in text
    assert "pytest_fkit" not in text.replace("pytest_fkit summary", "")


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("test_segv", "call"),
        ("test_kill", "call"),
        ("test_exit_0", "call"),
        ("test_kills_parent", "call"),
        ("test_setup", "setup"),
    ],
)
def test_death_keeps_output_and_log(run: Run, name: str, phase: str) -> None:
    captured = run.bad(name).captured
    assert captured[f"Captured stdout {phase}"] == "said on stdout\n"
    assert captured[f"Captured stderr {phase}"] == "said on stderr\n"
    assert re.fullmatch(
        r"WARNING  suite:test_deaths\.py:\d+ said in the log", captured[f"Captured log {phase}"]
    )
    assert len(captured) == 3
    text = run.junit(name)[0].find("error").text
    assert "said on stdout" in text
    assert "said in the log" in text


def test_death_in_teardown_keeps_the_output_of_each_phase(run: Run) -> None:
    captured = run.bad("test_teardown").captured
    assert captured["Captured stdout setup"] == "said in setup\n"
    assert captured["Captured stdout call"] == "said in call\n"
    assert captured["Captured stdout teardown"] == "said on stdout\n"
    assert "said in the log" in captured["Captured log teardown"]


@pytest.mark.parametrize("name", ["test_after_segv", "test_abrt"])
def test_output_does_not_leak_into_other_reports(run: Run, name: str) -> None:
    assert run.bad(name).sections == []


def test_completed_phases_keep_their_reports(run: Run) -> None:
    assert run.outcomes("test_segv")[:2] == ["setup passed", "call failed"]
    assert run.outcomes("test_teardown") == ["setup passed", "call passed", "teardown failed"]
    assert run.outcomes("test_teardown_after_failure") == [
        "setup passed",
        "call failed",
        "teardown failed",
    ]
    assert run.outcomes("test_setup")[0] == "setup failed"
    assert "the call failed before" in run.of("test_teardown_after_failure")[1].text


def test_each_test_has_one_verdict(run: Run) -> None:
    names = re.findall(r"^ *def (test_\w+)\(", _TEXT, re.M)
    for name in names:
        phases = [report.when for report in run.of(name)]
        assert len(phases) == len(set(phases)), name
        assert phases[0] == "setup", name
        assert phases[-1] == "teardown", name
    assert {report.nodeid.rpartition("::")[2] for report in run.reports} == set(names)


def test_controller_lives_through_it_all(run: Run) -> None:
    assert run.status == 1
    assert len({report.pid for report in run.reports}) == 1
    assert run.outcomes("test_at_the_end") == ["setup passed", "call passed", "teardown passed"]
    assert "INTERNALERROR" not in run.text


def test_deaths_count_as_errors(run: Run) -> None:
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", run.lines[-1])}
    errors = [line for line in run.lines if line.startswith("ERROR ")]
    failures = [line for line in run.lines if line.startswith("FAILED ")]
    assert counts["errors"] == len(errors)
    assert counts["failed"] == len(failures)
    # What else fails here fails in plain pytest as well.
    spared = {"test_closes_usual_descriptors"} if _SPARED else set()
    assert {line.split(" ")[1].rpartition("::")[2] for line in failures} == spared | {
        "test_after_segv",
        "test_teardown_after_failure",
        "test_sys_exit",
        "test_not_picklable",
        "test_surrogates",
        "test_capsys_fails",
    }


def test_summary_section_lists_deaths(run: Run) -> None:
    start = next(i for i, line in enumerate(run.lines) if "pytest-fkit summary" in line)
    assert re.match(r"\d+ tests crashed and were reported as errors:", run.lines[start + 1])
    worker = "main" if run.directory.name.startswith("alone") else r"gw[01]"
    place = rf"{_FILE}:{_line('test_segv')}"
    pattern = rf"  {_FILE}::test_segv +SIGSEGV  {place}  {worker}"
    assert any(re.fullmatch(pattern, line) for line in run.lines[start:])


# --- reports and output ---


def test_sys_exit_is_a_failure_as_in_plain_pytest(run: Run) -> None:
    assert run.bad("test_sys_exit").text.count("SystemExit: leaving") == 1
    assert run.outcomes("test_sys_exit") == ["setup passed", "call failed", "teardown passed"]


def test_crash_in_repr_of_the_exception(run: Run) -> None:
    # What of the report is made by then depends on pytest's version; the death is the verdict.
    (line,) = run.summary("test_repr_crashes")
    assert line == (
        f"ERROR {_FILE}::test_repr_crashes - SIGSEGV at {_FILE}:{_line('repr')} in __str__"
    )


def test_exception_that_cannot_be_pickled(run: Run) -> None:
    assert "NotPicklable" in run.bad("test_not_picklable").text


def test_lone_surrogates(run: Run) -> None:
    report = run.bad("test_surrogates")
    assert "AssertionError: lone \\udc80 surrogate" in report.text
    assert report.captured["Captured stdout call"] == "before ? after\n"
    assert "log \\udc80" in report.captured["Captured log call"]


def test_bytes_in_output(run: Run) -> None:
    captured = run.bad("test_bytes").captured
    assert captured["Captured stdout call"] == "before \ufffd\ufffd after\n"


def test_record_property_of_a_path(run: Run) -> None:
    assert run.of("test_property")[-1].properties == [["path", "/some/where"]]
    properties = run.junit("test_property")[0].iter("property")
    (found,) = (each for each in properties if not each.get("name", "").startswith("fkit_"))
    assert (found.get("name"), found.get("value")) == ("path", "/some/where")


def test_capsys_and_a_crash(run: Run) -> None:
    captured = run.bad("test_capsys").captured
    assert captured["Captured stdout call"] == "said on stdout\nas bytes\n"
    assert captured["Captured stderr call"] == "said on stderr\n"
    assert "said in the log" in captured["Captured log call"]


def test_capfd_and_a_crash(run: Run) -> None:
    captured = run.bad("test_capfd").captured
    assert captured["Captured stdout call"] == "said on stdout\nfrom a process\n"
    assert captured["Captured stderr call"] == "said on stderr\n"


@pytest.mark.parametrize("name", ["test_capfd_reads_its_own", "test_capfd_reads_processes"])
def test_capfd_gets_what_was_printed_since_it_began(run: Run, name: str) -> None:
    assert "call passed" in run.outcomes(name)


def test_what_capsys_held_back_is_reported_once(run: Run) -> None:
    assert run.bad("test_capsys_fails").captured == {"Captured stdout call": "held back\n"}


# --- attacks ---


def test_closing_the_usual_descriptors_hurts_nobody_else(run: Run) -> None:
    if not _SPARED:
        assert "closed the descriptor" in run.bad("test_closes_usual_descriptors").text
        return
    # pytest's own capture files are among them, so the test has an error of pytest's.
    assert "Bad file descriptor" in run.of("test_closes_usual_descriptors")[1].text


@pytest.mark.parametrize(
    "name", ["test_copy_returns", "test_copy_raises", "test_fixture_forks", "test_leaves_threads"]
)
def test_copies_and_threads_leave_one_result(run: Run, name: str) -> None:
    assert run.outcomes(name) == ["setup passed", "call passed", "teardown passed"]


def test_no_finalizer_runs_twice(run: Run) -> None:
    assert sorted(run.ran("finalized")) == [
        "test_copy_raises",
        "test_copy_returns",
        "test_finalizer_forks",
        "test_finalizer_forks",  # two fixtures
        "test_fixture_forks",
    ]


# --- skip and xfail ---


@pytest.mark.parametrize("name", ["test_skip", "test_skipif"])
def test_skipped_test_sets_nothing_up(run: Run, name: str) -> None:
    assert run.outcomes(name) == ["setup skipped", "teardown passed"]


def test_xfail_that_is_not_run_sets_nothing_up(run: Run) -> None:
    assert run.outcomes("test_xfail_not_run") == ["setup xskipped", "teardown passed"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("test_xfail", "known"),
        ("test_xfail_strict", "known, strictly"),
        ("test_add_marker", "found out late"),
        ("test_applymarker", "found out late"),
    ],
)
def test_expected_death_is_xfailed(run: Run, name: str, reason: str) -> None:
    assert run.outcomes(name) == ["setup passed", "call xskipped", "teardown passed"]
    assert run.of(name)[1].wasxfail == reason
    (line,) = run.summary(name)
    assert line.partition(" - ")[0] == f"XFAIL {_FILE}::{name}"


def test_expected_death_in_setup_is_xfailed(run: Run) -> None:
    assert run.outcomes("test_xfail_setup") == ["setup xskipped", "teardown passed"]


def test_expected_death_in_teardown_is_xfailed(run: Run) -> None:
    # As an exception there is, in plain pytest.
    outcomes = run.outcomes("test_xfail_teardown")
    assert outcomes == ["setup passed", "call xskipped", "teardown xskipped"]


# --- runs of their own ---


def _of(report: Report, name: str) -> int:
    return next(length for section, _, length in report.sections if section == name)


_RUNXFAIL = """
import os, sys
import pytest

@pytest.mark.xfail
def test_xfail():
    print("at level of Python")
    os.write(1, b"past sys.stdout")
    os.abort()

@pytest.fixture
def talks():
    print("from the setup")

def test_phases(talks):
    print("from the call")
    sys.stdout.buffer.write(b"as bytes\\n")
    sys.stdout.flush()
    os.abort()
"""


def test_runxfail_and_capture_sys(tmp_path: Path) -> None:
    run = Run(
        new_suite(tmp_path, test_it=_RUNXFAIL), "--fkit", "-n1", "--runxfail", "--capture=sys"
    )
    assert run.summary("test_xfail") == [
        "ERROR test_it.py::test_xfail - SIGABRT at test_it.py:9 in test_xfail"
    ]
    assert run.bad("test_xfail").captured == {"Captured stdout call": "at level of Python\n"}
    assert run.bad("test_phases").captured == {
        "Captured stdout setup": "from the setup\n",
        "Captured stdout call": "from the call\nas bytes\n",
    }


_LARGE = """
import os

def test_passes():
    print("x" * 30_000_000)

def test_dies():
    print("x" * 30_000_000)
    os._exit(1)
"""


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_large_output(tmp_path: Path, workers: str) -> None:
    suite = new_suite(tmp_path, test_it=_LARGE)
    run = Run(suite, "--fkit", workers, "--show-capture=no")
    (_, call, _) = run.of("test_passes")
    assert call.outcome == "passed"
    assert _of(call, "Captured stdout call") == 30_000_001
    assert _of(run.bad("test_dies"), "Captured stdout call") == 30_000_001


_STATUSES = """
import os, pytest

@pytest.fixture(autouse=True, scope="module")
def wide():
    yield

@pytest.mark.parametrize("status", range(64, 96))
def test_it(status):
    os._exit(status)
"""


@pytest.mark.parametrize("isolation", ["function", "session"])
def test_a_status_that_a_test_exits_with_is_not_taken_for_one_of_ours(
    tmp_path: Path, isolation: str
) -> None:
    write_files(tmp_path, {"test_it.py": _STATUSES})
    ended = run_pytest(tmp_path, "--fkit", "-n0", f"--fkit-isolation={isolation}")
    assert {nodeid: text for _, nodeid, text in ended.reported} == {
        f"test_it.py::test_it[{status}]": f"exit status {status}" for status in range(64, 96)
    }


_BETWEEN_PHASES = """\
import os
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    # As glibc does when it finds that the test has corrupted the heap.
    os.write(2, f"{item.name}: free(): invalid pointer\\n".encode())
    if item.name == "test_dies" and call.when == "call":
        os.write(2, b"free(): invalid pointer\\n")
        os.abort()
    return (yield)
"""


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_last_words_between_phases_are_in_the_report(tmp_path: Path, workers: str) -> None:
    suite = "def test_goes_on(): pass\ndef test_dies(): pass\n"
    write_files(tmp_path, {"test_it.py": suite, "conftest.py": _BETWEEN_PHASES})
    ended = run_pytest(tmp_path, "--fkit", workers)
    said = "free(): invalid pointer"
    assert f"SIGABRT: {said}" in ended.message("test_it.py::test_dies")
    assert f"test_dies: {said}\n{said}\n" in ended.out  # among what was captured
    # What others write then goes to where it goes in plain pytest.
    assert ended.err.count(f"test_goes_on: {said}\n") == 3
    assert f"\n{said}\n" not in ended.err
