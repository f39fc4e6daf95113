"""pytest-rerunfailures: failures as plain, and deaths, which plain pytest does not survive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable, Mapping

import chrome_trace
import pytest
from comparing import MakeSuite
from gpu_events import hear
from journals import events, fkit

import fleet as fleets

# The files by which the tests count are those of one run.
CONFTEST = """
    import builtins, os, pathlib

    def pytest_configure(config):
        builtins.KEY = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))

    def attempt(name):
        with open(f"{KEY}-{name}", "a") as file:
            file.write("x")
        return len(pathlib.Path(f"{KEY}-{name}").read_text())

    builtins.attempt = attempt
"""

FLAKY = """
    import pytest

    def test_passes_at_third(tmp_path_factory):
        assert attempt("third") == 3

    @pytest.mark.flaky(reruns=1)
    def test_marked():
        assert attempt("marked") == 2

    def test_never():
        assert False

    @pytest.fixture
    def flaky_setup():
        assert attempt("setup") == 2

    def test_setup(flaky_setup):
        pass

    def test_teardown(request):
        if attempt("teardown") < 2:
            request.addfinalizer(lambda: 1 / 0)

    counted = []

    def test_attempts_share_the_memory():
        counted.append(1)
        assert len(counted) == 3

    def test_xfail(request):
        request.applymarker(pytest.mark.xfail)
        assert attempt("xfail") == 2
"""


def test_failures_are_run_again(suite: MakeSuite) -> None:
    plain = suite("rerunfailures", test_flaky=FLAKY, conftest=CONFTEST).compare("--reruns=2")
    assert plain.outcomes["test_flaky.py::test_passes_at_third"].count("call rerun") == 2
    assert plain.counts()["setup rerun"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--reruns=1", "--only-rerun=ZeroDivisionError"],
        ["--reruns=1", "--rerun-except=AssertionError"],
        ["--reruns=2", "--max-suite-reruns=1", "test_one.py"],
        ["--reruns=2", "--fail-on-flaky", "test_one.py"],
    ],
    ids=lambda arguments: arguments[1].strip("-").partition("=")[0],
)
def test_options(suite: MakeSuite, arguments: list[str]) -> None:
    one = """
        def test_one():
            assert attempt("one") == 2
        def test_two():
            assert attempt("two") == 1
    """
    made = suite("rerunfailures", test_flaky=FLAKY, conftest=CONFTEST, test_one=one)
    plain = made.run(*arguments)
    assert any("rerun" in what for what in plain.counts()), plain.text
    for mode in (["-n0"], ["-n1"], ["-n0", "-p", "no:xdist"]):
        options = ["--fkit", *(mode if "no:xdist" not in mode else mode[1:])]
        run = made.run(*options, *arguments)
        assert (run.status, run.outcomes) == (plain.status, plain.outcomes), run.text
    if "--fail-on-flaky" in arguments:
        assert plain.status == 7


def test_failures_of_subtests_are_taken_back(suite: MakeSuite) -> None:
    again = """
        def test_subtests(subtests):
            with subtests.test("flaky"):
                assert attempt("subtests") == 2
            with subtests.test("well"):
                pass
    """
    dies = """
        import os
        def test_dies_after_its_subtest(subtests):
            number = attempt("dies")
            with subtests.test("flaky"):
                assert number == 2
            if number == 1:
                os.abort()
    """
    made = suite("rerunfailures", test_it=again, test_dies=dies, conftest=CONFTEST)
    plain = made.run("--reruns=1", "test_it.py")
    assert plain.status == 0, plain.text
    for mode in ("-n0", "-n1"):
        run = made.run("--fkit", mode, "--reruns=1")
        assert run.status == 0, run.text
        assert "2 passed, 2 rerun" in run.text
        name = "test_it.py::test_subtests"
        assert run.outcomes[name] == plain.outcomes[name]


CRASHES = """
    import os, pathlib, pytest, time

    @pytest.fixture
    def noisy():
        print("from the setup")

    def test_at_third(noisy):
        if attempt("third") < 3:
            os._exit(3)

    def test_always():
        print("attempt", attempt("always"))
        os.abort()

    def test_failure_then_death_then_failure():
        number = attempt("mixed")
        if number == 2:
            os.abort()
        assert False, f"attempt {number}"

    @pytest.mark.flaky(reruns=1)
    def test_in_teardown(request):
        if attempt("teardown") == 1:
            request.addfinalizer(os.abort)

    @pytest.mark.flaky(reruns=1, only_rerun="SIGABRT")
    def test_filter_lets_pass():
        if attempt("passes") == 1:
            os.abort()

    @pytest.mark.flaky(reruns=1, only_rerun=["AssertionError", KeyError])
    def test_filter_stops():
        attempt("stopped")
        os.abort()

    @pytest.mark.flaky(reruns=1, rerun_except="SIGABRT")
    def test_exception_stops():
        attempt("excepted")
        os.abort()

    @pytest.mark.flaky(reruns=1, condition=False)
    def test_condition_stops():
        attempt("condition")
        os.abort()

    @pytest.mark.flaky(reruns=1, reruns_delay=0.3)
    def test_delay():
        path = pathlib.Path(f"{KEY}-time")
        if attempt("delay") == 1:
            path.write_text(str(time.time()))
            os.abort()
        assert time.time() - float(path.read_text()) > 0.3

    @pytest.mark.xfail
    def test_expected():
        attempt("expected")
        os.abort()

    @pytest.fixture(scope="module")
    def wide():
        if attempt("wide") == 1:
            os.abort()

    @pytest.mark.fkit(timeout=1)
    def test_hang():
        if attempt("hang") == 1:
            time.sleep(60)

    def test_under_a_wide_fixture_that_died(wide):
        pass
"""

# Reports on each test, of the attempts in turn.
RERUN = ["setup passed", "call rerun", "teardown passed"]
PASS = ["setup passed", "call passed", "teardown passed"]
FAIL = ["setup passed", "call failed", "teardown passed"]
EXPECTED = {
    "test_at_third": [*RERUN, *RERUN, *PASS],
    "test_always": [*RERUN, *RERUN, *FAIL],
    "test_failure_then_death_then_failure": [*RERUN, *RERUN, *FAIL],
    "test_in_teardown": ["setup passed", "call passed", "teardown rerun", *PASS],
    "test_filter_lets_pass": [*RERUN, *PASS],
    "test_filter_stops": FAIL,
    "test_exception_stops": FAIL,
    "test_condition_stops": FAIL,
    "test_delay": [*RERUN, *PASS],
    "test_expected": ["setup passed", "call xfailed", "teardown passed"],
    "test_hang": [*RERUN, *PASS],
    "test_under_a_wide_fixture_that_died": ["setup rerun", "teardown passed", *PASS],
}


@pytest.mark.parametrize(
    "mode", [["-n0"], ["-n2"], ["-n1", "--fkit-isolation=session"]], ids=["n0", "n2", "session"]
)
def test_deaths_are_run_again(suite: MakeSuite, mode: list[str]) -> None:
    made = suite("rerunfailures", test_it=CRASHES, conftest=CONFTEST)
    run = made.run("--fkit", *mode, "--reruns=2", "-rR", "--rerun-show-tracebacks")
    assert {
        nodeid.partition("::")[2]: phases for nodeid, phases in run.outcomes.items()
    } == EXPECTED, run.text
    assert run.status == 1
    assert "RERUN test_it.py::test_at_third" in run.text
    assert "Captured stdout setup" not in run.text.partition("rerun test summary")[2]
    assert "10 attempts crashed and were retried:" in run.text
    assert "4 tests crashed and were reported as errors:" in run.text
    assert "the test process exited with status 3" in run.text  # why it was run again
    assert "could not add" not in run.text  # to a report, for what was noted in that process


def test_a_death_is_not_run_again_without_being_asked(suite: MakeSuite) -> None:
    made = suite("rerunfailures", test_crash="import os\ndef test_crash(): os._exit(3)\n")
    for mode in ("-n0", "-n1"):
        run = made.run("--fkit", mode)
        assert run.outcomes["test_crash.py::test_crash"] == FAIL
        run = made.run("--fkit", mode, "--reruns=1", "--rerun-exclude-path=test_crash.py")
        assert run.outcomes["test_crash.py::test_crash"] == FAIL


@pytest.mark.parametrize("mode", ["-n0", "-n1"])
def test_what_ended_the_last_attempt_counts(suite: MakeSuite, mode: str) -> None:
    source = """
        import os
        def test_it(capsys):
            number = attempt("it")
            print("attempt", number)
            if number == 1:
                os.abort()
            assert number == 1
    """
    made = suite("rerunfailures", test_it=source, conftest=CONFTEST)
    run = made.run("--fkit", mode, "--reruns=1", "-x", "--junitxml=junit.xml")
    assert run.outcomes["test_it.py::test_it"] == [*RERUN, *FAIL]
    assert "1 failed, 1 rerun" in run.text
    assert "assert 2 == 1" in run.text


def test_suite_wide_limit_counts_deaths_and_failures(suite: MakeSuite) -> None:
    source = """
        import os
        def test_death():
            attempt("death") == 1 and os.abort()
        def test_failure():
            assert attempt("failure") == 2
        def test_late_death():
            attempt("late") == 1 and os.abort()
    """
    made = suite("rerunfailures", test_it=source, conftest=CONFTEST)
    for mode in ("-n0", "-n1"):
        run = made.run("--fkit", mode, "--reruns=1", "--max-suite-reruns=2")
        assert run.outcomes["test_it.py::test_death"] == [*RERUN, *PASS], run.text
        assert run.outcomes["test_it.py::test_failure"] == [*RERUN, *PASS], run.text
        assert run.outcomes["test_it.py::test_late_death"] == FAIL, run.text


@pytest.mark.parametrize("mode", ["-n0", "-n1"])
def test_a_run_that_needed_another_attempt_can_fail(suite: MakeSuite, mode: str) -> None:
    source = "import os\ndef test_death():\n    attempt('death') == 1 and os.abort()\n"
    made = suite("rerunfailures", test_it=source, conftest=CONFTEST)
    assert made.run("--fkit", mode, "--reruns=1").status == 0
    assert made.run("--fkit", mode, "--reruns=1", "--fail-on-flaky").status == 7


def test_reports_say_which_attempt_they_are_of(suite: MakeSuite) -> None:
    conftest = (
        CONFTEST
        + """
    import json

    def pytest_runtest_logreport(report):
        if report.when == "call" and not os.environ.get("PYTEST_XDIST_WORKER"):
            with open("reruns", "a") as file:
                file.write(json.dumps([report.rerun, report.outcome]) + "\\n")
    """
    )
    source = "import os\ndef test_it():\n    attempt('it') < 3 and os.abort()\n"
    made = suite("rerunfailures", test_it=source, conftest=conftest)
    made.run("--fkit", "-n1", "--reruns=2")
    lines = (made.path / "reruns").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [[0, "rerun"], [1, "rerun"], [2, "passed"]]


@pytest.mark.parametrize("mode", ["-n0", "-n1", "-n2"])
def test_every_attempt_is_in_journal_and_trace(suite: MakeSuite, mode: str) -> None:
    source = """
        import os, pytest

        def test_dies_twice():
            if attempt("death") < 3:
                os.abort()

        def test_fails_then_dies_then_passes():
            number = attempt("both")
            assert number != 1
            if number == 2:
                os._exit(3)

        def test_fails_once():
            assert attempt("failure") == 2
    """
    made = suite("rerunfailures", test_it=source, conftest=CONFTEST)
    run = made.run(
        "--fkit", mode, "--reruns=2", "--fkit-journal=run.jsonl", "--fkit-trace=run.json"
    )
    assert run.status == 0, run.text
    found: dict[str, list[tuple[int, str, bool]]] = {}
    pids = set()
    for each in events(made.path / "run.jsonl", "attempt"):
        told = each["attempt"], each["ending"]["title"], each.get("again", False)
        found.setdefault(each["test"].partition("::")[2], []).append(told)
        pids.add(each["pid"])
    assert found == {
        "test_dies_twice": [
            (1, "SIGABRT", True), (2, "SIGABRT", True), (3, "finished", False),
        ],
        # The plugin runs a failure again in the process of the test: both are in one attempt.
        "test_fails_then_dies_then_passes": [
            (2, "exit status 3", True), (3, "finished", False),
        ],
        "test_fails_once": [(2, "finished", False)],
    }  # fmt: skip
    assert len(pids) == 6
    said = {each["test"]: each for each in events(made.path / "run.jsonl", "verdict")}
    assert len(said) == 3
    assert {each["outcome"] for each in said.values()} == {"passed"}
    reports = said["test_it.py::test_dies_twice"]["reports"]
    deaths = [each["fkit_death"] for each in reports if each["outcome"] == "rerun"]
    assert [death.partition(" at ")[0] for death in deaths] == ["SIGABRT", "SIGABRT"]
    trace = chrome_trace.load(made.path / "run.json")
    assert len(chrome_trace.slices(trace, "test")) == 6
    arrows = [(each["ph"], each["id"]) for each in trace if each["ph"] in "sf"]
    assert arrows == [(end, number) for number in (1, 2, 3) for end in "sf"]
    summed = fkit(made.path, "summary", "run.jsonl").stdout.splitlines()
    assert "  passed after 3 attempts  test_it.py::test_dies_twice" in summed


@pytest.mark.parametrize("mode", ["-n0", "-n1"])
def test_a_death_of_the_last_attempt_says_which_it_was(suite: MakeSuite, mode: str) -> None:
    made = suite("rerunfailures", test_it="import os\ndef test_it(): os.abort()\n")
    run = made.run("--fkit", mode, "--reruns=2", "--fkit-journal=run.jsonl", "--junitxml=junit.xml")
    [last] = [line for line in run.text.splitlines() if line.endswith(", attempt 3")]
    assert "test_it.py::test_it  SIGABRT" in last
    attempts = events(made.path / "run.jsonl", "attempt")
    assert [each["attempt"] for each in attempts] == [1, 2, 3]
    phases = [[(each["when"], each["outcome"]) for each in found["phases"]] for found in attempts]
    assert phases == [[("setup", "passed"), ("call", "died")]] * 3
    assert '"fkit_attempts" value="3"' in (made.path / "junit.xml").read_text()


ON_GPUS = {
    "conftest.py": """
import os, pathlib

def attempt(name):
    with open(f"attempts-{name}", "a") as file:
        file.write("x")
    return len(pathlib.Path(f"attempts-{name}").read_text())
""",
    "test_gpus.py": """
import os
from conftest import attempt

HANG = b"HW Exception by GPU node-1 (Agent handle: 0x6313) reason :GPU Hang\\n"

def test_passes():
    if attempt("passes") < 2: raise RuntimeError("CUDA out of memory")
def test_fails():
    attempt("fails")
    raise RuntimeError("CUDA out of memory")
def test_dies_first():
    if attempt("first") < 2: os.write(2, HANG); os.abort()
def test_dies_last():
    if attempt("last") < 2: os.abort()
    os.write(2, HANG); os.abort()
""",
}


def test_only_the_last_attempt_can_be_a_gpu_error(
    fleet: Callable[..., Mapping[str, str]], tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    without = pytestconfig.getoption("--without-plugins")
    names = ("xdist", "fkit", *(() if without else ("rerunfailures",)))
    plugins = [part for name in names for part in ("-p", name)]
    heard = hear(
        fleet(fleets.nvidia(2)), tmp_path, ON_GPUS, *plugins, "-n1", "--reruns=1",
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    assert {name: error["category"] for name, error in heard.errors.items()} == {
        "test_fails": "memory",
        "test_dies_last": "suspect",
    }
    for name, attempts in (("passes", 2), ("fails", 2), ("first", 2), ("last", 2)):
        assert len((tmp_path / f"attempts-{name}").read_text()) == attempts
