"""Plugins from PyPI: their documented features, plain and under fkit."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from comparing import MakeSuite

from pytest_fkit.compat import pytest_hooks

# --- pytest-cov ---------------------------------------------------------------------------------

COVERED = {
    "product": """
        def called_in_tests(flag):
            if flag:
                return 1
            return 2

        def called_in_wide_setup():
            return 3

        def called_in_wide_teardown():
            return 4

        def never_called():
            return 5
    """,
    "test_product": """
        import pytest
        import product

        @pytest.fixture(scope="module")
        def wide():
            yield product.called_in_wide_setup()
            product.called_in_wide_teardown()

        @pytest.mark.parametrize("flag", [True, False])
        def test_one(flag):
            assert product.called_in_tests(flag)

        def test_two(wide):
            assert wide == 3

        def test_failing():
            assert product.called_in_tests(True) == 2
    """,
}


def lines_missed(directory: Path) -> Any:
    report = json.loads((directory / "coverage.json").read_text())
    return {
        name: (data["missing_lines"], data.get("missing_branches"))
        for name, data in report["files"].items()
        if "crash" not in name
    }


def data_files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob(".coverage*"))


@pytest.mark.parametrize("branch", [(), ("--cov-branch",)], ids=["lines", "branches"])
def test_cov_counts_what_runs_in_test_processes(suite: MakeSuite, branch: tuple[str, ...]) -> None:
    plain = suite("pytest_cov", **COVERED).compare(
        "--cov=product", "--cov-report=json", *branch,
        artefact=lambda directory: (lines_missed(directory), data_files(directory)),
    )  # fmt: skip
    assert plain.artefact[0]["product.py"][0] == [13]


@pytest.mark.parametrize("isolation", ["function", "session"])
@pytest.mark.parametrize("options", [(), ("-p",), ("--branch",)], ids=" ".join)
def test_coverage_run_counts_what_runs_in_test_processes(
    request: pytest.FixtureRequest, suite: MakeSuite, options: tuple[str, ...], isolation: str
) -> None:
    directory = suite(**COVERED).path
    without = request.config.getoption("--without-plugins")
    measuring = [] if without else ["-m", "coverage", "run", "--source=.", *options]
    plugins = ["-m", "pytest", "-p", "xdist", "-p", "fkit"]

    def measured(*arguments: str) -> tuple[Any, list[str]]:
        combining = [["-m", "coverage", "combine", "-q"]] if "-p" in options else []
        commands = [
            [*measuring, *plugins, *arguments],
            *combining,
            ["-m", "coverage", "json", "-q"],
        ]
        found = [subprocess.run([sys.executable, *each], check=False) for each in commands]
        assert [ended.returncode for ended in found] == [1, *[0] * (len(commands) - 1)]
        return lines_missed(directory), data_files(directory)

    plain = measured()
    assert measured("--fkit", "-n0", f"--fkit-isolation={isolation}") == plain
    assert plain[0]["product.py"][0] == [13]


def test_cov_contexts_name_the_tests(suite: MakeSuite) -> None:
    def contexts(directory: Path) -> set[str]:
        with sqlite3.connect(directory / ".coverage") as data:
            return {name for (name,) in data.execute("select context from context")}

    plain = suite("pytest_cov", **COVERED).compare(
        "--cov=product", "--cov-context=test", artefact=contexts, crash=False, modes=["n0"]
    )
    assert "test_product.py::test_two|setup" in plain.artefact
    assert "test_product.py::test_failing|teardown" in plain.artefact


def test_cov_works_without_a_number_of_workers(suite: MakeSuite) -> None:
    made = suite("pytest_cov", **COVERED)
    plain = made.run("--cov=product", "--cov-report=json", artefact=lines_missed)
    run = made.run("--fkit", "--cov=product", "--cov-report=json", artefact=lines_missed)
    assert (run.status, run.outcomes, run.artefact) == (
        plain.status, plain.outcomes, plain.artefact,
    )  # fmt: skip


def test_cov_fail_under_fails_the_run(suite: MakeSuite) -> None:
    files = {**COVERED, "test_product": "import product\ndef test_it(): product.never_called()\n"}
    made = suite("pytest_cov", **files)
    assert made.compare("--cov=product", "--cov-fail-under=99", crash=False).status == 1
    assert made.compare("--cov=product", "--cov-fail-under=10", crash=False).status == 0


# --- order --------------------------------------------------------------------------------------


def test_repeat_repeats(suite: MakeSuite) -> None:
    source = """
        import pytest
        def test_pass(): pass
        @pytest.mark.repeat(3)
        def test_marked(): assert 0
    """
    plain = suite("pytest_repeat", test_it=source).compare("--count=2")
    assert plain.counts()["call passed"] == 2
    assert plain.counts()["call failed"] == 3


ORDER = """
    def test_a(): pass
    def test_b(): assert 0
    def test_c(): pass
    def test_d(): pass
"""


def order_of(run: Any) -> list[str]:
    return [nodeid for nodeid in run.outcomes if "crash" not in nodeid]


def test_randomly_shuffles_as_plain(suite: MakeSuite) -> None:
    source = (
        ORDER
        + """
    def test_random():
        import random
        assert random.random() > 2
    """
    )
    made = suite("randomly", test_it=source)
    plain = made.compare("-p", "randomly", "-p", "no:xdist", modes=(), crash=False)
    plain = made.compare("-prandomly", "--randomly-seed=7")
    run = made.run("--fkit", "-n0", "--randomly-seed=7")
    assert order_of(run) == order_of(plain) != sorted(order_of(plain))
    number = re.findall(r"assert (0\.\d+) > 2", plain.text)
    assert number
    assert re.findall(r"assert (0\.\d+) > 2", run.text) == number


def test_order_orders(suite: MakeSuite) -> None:
    source = """
        import pytest
        @pytest.mark.order(2)
        def test_second(): assert 0
        @pytest.mark.order(1)
        def test_first(): pass
    """
    made = suite("pytest_order", test_it=source)
    plain = made.compare()
    assert order_of(plain) == ["test_it.py::test_first", "test_it.py::test_second"]
    assert order_of(made.run("--fkit", "-n0")) == order_of(plain)


# --- what tests use -----------------------------------------------------------------------------


def test_asyncio_runs_coroutines(suite: MakeSuite) -> None:
    source = """
        import asyncio, pytest, pytest_asyncio

        @pytest_asyncio.fixture
        async def value():
            await asyncio.sleep(0)
            yield 1
            await asyncio.sleep(0)

        @pytest.mark.asyncio
        async def test_pass(value):
            assert value == 1

        @pytest.mark.asyncio
        async def test_fail(value):
            assert value == 2

        @pytest_asyncio.fixture(loop_scope="module", scope="module")
        async def wide():
            yield asyncio.get_running_loop()

        @pytest.mark.asyncio(loop_scope="module")
        async def test_same_loop(wide):
            assert wide is asyncio.get_running_loop()

        @pytest.mark.asyncio(loop_scope="module")
        async def test_same_loop_again(wide):
            await asyncio.sleep(0.01)
            assert wide is asyncio.get_running_loop()
    """
    plain = suite("asyncio", test_it=source).compare()
    assert plain.counts()["call passed"] == 3


def test_mock_patches(suite: MakeSuite) -> None:
    source = """
        import os
        def test_patch(mocker):
            mocker.patch("os.getcwd", return_value="nowhere")
            assert os.getcwd() == "nowhere"
        def test_undone():
            assert os.getcwd() != "nowhere"
        def test_fail(mocker):
            mocker.stub()()
            stub = mocker.stub()
            stub(1)
            stub.assert_called_once_with(2)
        def test_module_scope(module_mocker):
            module_mocker.patch("os.getcwd", return_value="wide")
            assert os.getcwd() == "wide"
    """
    plain = suite("pytest_mock", test_it=source).compare()
    assert plain.counts()["call passed"] == 3


def test_timeout_acts_first(suite: MakeSuite) -> None:
    source = """
        import time, pytest
        def test_pass(): pass
        @pytest.mark.timeout(1)
        def test_slow(): time.sleep(60)
        @pytest.mark.timeout(1, method="signal")
        def test_slow_too(): time.sleep(60)
    """
    plain = suite("timeout", test_it=source).compare("--timeout=30")
    assert plain.counts()["call failed"] == 2
    assert "Timeout" in plain.text


@pytest.mark.parametrize("said_by", ["mark", "ini"])
def test_timeout_of_the_function_alone_does_not_count_fixtures(
    suite: MakeSuite, said_by: str
) -> None:
    more = ", func_only=True" if said_by == "mark" else ""
    source = f"""
        import time, pytest
        @pytest.fixture
        def hangs():
            time.sleep(60)
        @pytest.mark.timeout(0.3{more})
        def test_it(hangs): pass
    """
    made = suite("timeout", test_it=source)
    arguments = ["-o", "timeout_func_only=true"] if said_by == "ini" else []
    run = made.run("--fkit", "-n0", "--fkit-timeout=0.5", *arguments)
    assert "timed out after 0.8 s" in run.text


def test_timeout_given_by_its_module_acts_first(suite: MakeSuite) -> None:
    source = """
        import time, pytest
        @pytest.mark.timeout(1)
        def test_slow(): time.sleep(60)
    """
    run = suite("pytest_timeout", test_it=source).run("--fkit", "-n0")
    assert "Failed: Timeout (>1.0s) from pytest-timeout" in run.text


def test_modules_of_entry_points(request: pytest.FixtureRequest) -> None:
    found: dict[str, str] = {}
    if not request.config.getoption("--without-plugins"):
        every = (each for distribution in distributions() for each in distribution.entry_points)
        found.update((each.name, each.value) for each in every if each.group == "pytest11")
    assert found.items() >= pytest_hooks.MODULES.items()


def test_timeout_by_thread_is_one_error(suite: MakeSuite) -> None:
    # Plain pytest ends here: the thread leaves the process by os._exit(1).
    source = """
        import time, pytest
        @pytest.mark.timeout(1, method="thread")
        def test_slow(): time.sleep(60)
        def test_pass(): pass
    """
    made = suite("timeout", test_it=source)
    for mode in ("-n0", "-n1"):
        run = made.run("--fkit", mode)
        assert run.counts()["call failed"] == 1, run.text
        assert run.counts()["call passed"] == 1, run.text
        assert "timed out after" not in run.text  # our own limit, by the same mark
        # In a worker pytest-timeout writes the stacks to a terminal that is /dev/null.
        assert mode == "-n1" or "time.sleep(60)" in run.text


def test_hypothesis_finds_and_remembers(suite: MakeSuite) -> None:
    source = """
        from hypothesis import given, settings, strategies as st

        @given(st.integers())
        @settings(max_examples=20)
        def test_pass(n): assert n == n

        @given(st.integers())
        @settings(max_examples=200)
        def test_fail(n): assert n < 1000
    """

    def remembered(directory: Path) -> bool:
        return any((directory / ".hypothesis" / "examples").rglob("*"))

    made = suite("hypothesispytest", test_it=source)
    plain = made.compare(artefact=remembered)
    assert plain.artefact
    assert "n=1000" in plain.text
    for mode in ("-n0", "-n2"):
        run = made.run("--fkit", mode, "--hypothesis-show-statistics")
        assert "n=1000" in run.text, mode
        assert "Hypothesis Statistics" in run.text, mode


def test_benchmark_measures(suite: MakeSuite) -> None:
    source = """
        def test_fast(benchmark):
            assert benchmark(lambda: 3) == 3
        def test_fail(benchmark):
            assert benchmark(lambda: 3) == 4
    """

    def names(directory: Path) -> list[str]:
        path = directory / "bench.json"
        if not path.exists() or not path.read_text():
            return []
        return [each["name"] for each in json.loads(path.read_text())["benchmarks"]]

    made = suite("benchmark", test_it=source)
    made.compare("--benchmark-disable")


# --- reports ------------------------------------------------------------------------------------

REPORTED = """
    import pytest, sys

    def test_pass(record_property):
        record_property("answer", 42)
        print("to stdout")

    def test_fail():
        print("to stderr", file=sys.stderr)
        assert 1 == 2

    @pytest.mark.skip(reason="not now")
    def test_skip(): pass

    @pytest.mark.xfail
    def test_xfail(): assert 0

    @pytest.mark.xfail
    def test_xpass(): pass

    @pytest.fixture
    def broken(): raise ValueError("broken")

    def test_error(broken): pass
"""


def test_html_lists_every_test(suite: MakeSuite) -> None:
    def rows(directory: Path) -> Any:
        text = (directory / "report.html").read_text()
        found = re.search(r'data-jsonblob="([^"]*)"', text)
        assert found is not None
        import html

        tests = json.loads(html.unescape(found[1]))["tests"]
        return {
            name: sorted(row["result"] for row in rows)
            for name, rows in tests.items()
            if "crash" not in name
        }

    plain = suite("html", "metadata", test_it=REPORTED).compare(
        "--html=report.html", "--self-contained-html", artefact=rows
    )
    assert len(plain.artefact) == 6


def test_json_report_lists_every_test(suite: MakeSuite) -> None:
    def tests(directory: Path) -> Any:
        report = json.loads((directory / "report.json").read_text())
        return {
            test["nodeid"]: (test["outcome"], test.get("user_properties"), sorted(test["keywords"]))
            for test in report["tests"]
            if "crash" not in test["nodeid"]
        }

    plain = suite("pytest_jsonreport", "metadata", test_it=REPORTED).compare(
        "--json-report", "--json-report-file=report.json", artefact=tests
    )
    assert plain.artefact["test_it.py::test_pass"][:2] == ("passed", [{"answer": 42}])


def test_reportlog_logs_every_report(suite: MakeSuite) -> None:
    def reports(directory: Path) -> Any:
        lines = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
        return sorted(
            (line["nodeid"], line["when"], line["outcome"], json.dumps(line["user_properties"]))
            for line in lines
            if line.get("$report_type") == "TestReport" and "crash" not in line["nodeid"]
        )

    plain = suite("pytest_reportlog", test_it=REPORTED).compare(
        "--report-log=log.jsonl", artefact=reports
    )
    assert len(plain.artefact) == 16


def test_metadata_is_in_junit(suite: MakeSuite) -> None:
    def properties(directory: Path) -> Any:
        root = ET.parse(directory / "junit.xml").getroot()
        return sorted(
            (element.get("name"), element.get("value"))
            for element in root.iter("property")
            if element.get("name") != "Platform" and not element.get("name", "").startswith("fkit_")
        )

    plain = suite("metadata", test_it=REPORTED).compare(
        "--metadata", "colour", "red", "--junitxml=junit.xml", artefact=properties
    )
    assert ("answer", "42") in plain.artefact
