"""Wide fixtures that kill their process: one ERROR for each test that needs them."""

from __future__ import annotations

import pytest
from recorded_runs import SUITES, Run, new_suite

_SUITE = {
    "tests__test_1": "wide_deaths",
    "tests__test_2": "xunit_deaths",
    "tests__test_3": "xunit_teardown_deaths",
    "tests__test_4": "module_deaths",
}


@pytest.fixture(scope="module")
def with_worker(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return _run(tmp_path_factory, "-n1")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return _run(tmp_path_factory, "-n0")


def _run(tmp_path_factory: pytest.TempPathFactory, workers: str) -> Run:
    files = {name: (SUITES / f"{suite}.py").read_text() for name, suite in _SUITE.items()}
    directory = new_suite(tmp_path_factory.mktemp("wide"), **files)
    return Run(directory, "--fkit", workers, "-rA")


@pytest.fixture(params=["with_worker", "alone"])
def run(request: pytest.FixtureRequest) -> Run:
    result = request.getfixturevalue(request.param)
    assert isinstance(result, Run)
    return result


@pytest.mark.parametrize(
    ("test", "fixture", "title"),
    [
        ("session_setup", "session_setup", "SIGSEGV"),
        ("module_setup", "module_setup", "exit status 5"),
        ("class_setup", "class_setup", "SIGABRT"),
        ("setup_class", "setup_class", "SIGSEGV"),
        ("unittest_setup", "setUpClass", "SIGSEGV"),
        ("setup_module", "setup_module", "SIGKILL"),
    ],
)
def test_death_in_wide_setup_is_remembered(run: Run, test: str, fixture: str, title: str) -> None:
    first, second = run.bad(f"test_{test}_1"), run.bad(f"test_{test}_2")
    assert first.when == second.when == "setup"
    (line,) = run.summary(f"test_{test}_1")
    headline = line.partition(" - ")[2]
    assert headline.startswith(f"{title} while setting up ")
    assert fixture in headline
    assert "the test process" in first.text
    assert "phase setup of " in first.text
    # The others name that death, of a process that died once, in two lines.
    said = [line for line in second.text.splitlines() if line.strip("E ")]
    assert said[-2].endswith(f"was not set up again: {headline}")
    assert said[-1].endswith(f"see the report on {first.nodeid}, for which it was set up")
    assert run.ran("noted").count(fixture) == 1


def test_exception_in_wide_setup_is_remembered(run: Run) -> None:
    for name in ("test_module_raises_1", "test_module_raises_2"):
        assert run.outcomes(name) == ["setup failed", "teardown passed"]
        assert "ValueError: the reason" in run.bad(name).text
    assert run.ran("noted").count("module_raises") == 1


def test_no_test_runs_whose_wide_fixture_died(run: Run) -> None:
    assert "must not run" not in run.ran("noted")


def test_other_parameters_of_a_wide_fixture_that_died_are_set_up(run: Run) -> None:
    for name in ("test_parameter_1", "test_parameter_2"):
        for parameter, outcomes in {
            "sound": ["setup passed", "call passed", "teardown passed"],
            "dies": ["setup failed", "teardown passed"],
            "sound again": ["setup passed", "call passed", "teardown passed"],
        }.items():
            assert run.outcomes(f"{name}[{parameter}]") == outcomes


def test_death_in_wide_setup_keeps_its_output(run: Run) -> None:
    assert run.bad("test_session_setup_1").captured == {
        "Captured stdout setup": "said by the session's fixture\n"
    }


def test_other_tests_of_the_class_run(run: Run) -> None:
    assert run.outcomes("test_without_it") == ["setup passed", "call passed", "teardown passed"]


def test_death_after_wide_setup_keeps_the_output_of_both(run: Run) -> None:
    assert run.bad("test_output_of_wide_setup").captured == {
        "Captured stdout setup": "wide setup\nnarrow setup\n"
    }


def test_death_of_a_wide_fixture_that_the_test_itself_asks_for(run: Run) -> None:
    report = run.bad("test_getfixturevalue")
    assert report.when == "call"
    assert "phase setup of class-scoped fixture 'asks_in_the_test'" in report.text


@pytest.mark.parametrize(
    ("test", "title", "noted"),
    [
        ("class_teardown", "SIGSEGV", "class_teardown"),
        ("teardown_class", "exit status 0", "teardown_class"),
        ("unittest_teardown", "SIGSEGV", "tearDownClass"),
        ("last", "SIGSEGV", "session_teardown"),
    ],
)
def test_death_in_wide_teardown_is_an_error_of_the_last_user(
    run: Run, test: str, title: str, noted: str
) -> None:
    assert run.outcomes(f"test_{test}_1") == ["setup passed", "call passed", "teardown passed"]
    assert run.outcomes(f"test_{test}_2") == ["setup passed", "call passed", "teardown failed"]
    report = run.bad(f"test_{test}_2")
    assert "phase teardown of wide fixtures" in report.text
    lines = [line for line in run.summary(f"test_{test}_2") if line.startswith("ERROR")]
    assert len(lines) == 1
    assert f" - {title} while tearing down wide fixtures" in lines[0]
    assert run.ran("noted").count(noted) == 1


def test_death_in_teardown_module(run: Run) -> None:
    assert run.bad("test_teardown_module_2").when == "teardown"
    assert "SIGABRT" in run.bad("test_teardown_module_2").text


def test_death_in_wide_teardown_keeps_the_output_of_all_phases(run: Run) -> None:
    assert run.bad("test_class_teardown_2").captured == {
        "Captured stdout call": "in the call\n",
        "Captured stdout teardown": "narrow teardown\nwide teardown\n",
    }


def test_expected_death_in_wide_teardown_is_xfailed(run: Run) -> None:
    assert run.outcomes("test_xfail_wide_teardown") == [
        "setup passed",
        "call xskipped",
        "teardown xskipped",
    ]


def test_what_dies_last_is_torn_down_in_order(run: Run) -> None:
    assert run.ran("noted")[-4:] == [
        "session_teardown is set up",
        "module_teardown",
        "teardown_module",
        "session_teardown",
    ]


@pytest.mark.parametrize("name", ["test_session_setup_1", "test_session_setup_2", "test_last_2"])
def test_junit_has_one_error(run: Run, name: str) -> None:
    (case,) = run.junit(name)
    assert len(case.findall("error")) == 1
    assert case.findall("failure") == []
