"""Plugins that keep what they saw of tests in memory, and say it when the session ends."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

from comparing import MODES, MakeSuite

TESTS = """
    import pytest

    @pytest.fixture(scope="module")
    def wide(): yield 1

    @pytest.fixture
    def narrow(wide): return wide

    def test_one(wide): assert wide == 1
    def test_two(narrow): assert narrow == 2
    @pytest.mark.parametrize("n", [1, 2])
    def test_three(n, wide): pass
    @pytest.mark.skip
    def test_four(): pass
"""


def test_accept_writes_what_was_found(suite: MakeSuite) -> None:
    wrong = "def test_one():\n    assert [1, 2] == [3]\n\ndef test_two():\n    assert 4 == 5\n"
    made = suite("accept", test_it=wrong, test_other=wrong)
    files = [made.path / "test_it.py", made.path / "test_other.py"]
    for mode in ([], MODES["n0"], ["--fkit", "-n0", "--fkit-isolation=session"]):
        assert made.run(*mode, "--accept").counts()["call passed"] == 4, mode
        for path in files:
            assert path.read_text().count("[1, 2] == [1, 2]") == 1, mode
            assert path.read_text().count("4 == 4") == 1, mode
            path.write_text(wrong)


def test_codspeed_writes_what_was_measured(suite: MakeSuite) -> None:
    def measured(directory: Path) -> list[str]:
        names: list[str] = []
        for path in (directory / ".codspeed").glob("*.json"):
            names += (each["name"] for each in json.loads(path.read_text())["benchmarks"])
            path.unlink()
        return sorted(names)

    source = """
        import pytest
        @pytest.mark.benchmark
        def test_marked(): sum(range(100))
        @pytest.mark.parametrize("n", [1, 2])
        def test_measured(benchmark, n): assert benchmark(lambda: n) == 1
    """
    arguments = ("--codspeed-mode=walltime", "--codspeed-warmup-time=0", "--codspeed-max-time=0.01")
    made = suite("codspeed", test_it=source)
    plain = made.run("--codspeed", *arguments, artefact=measured)
    assert plain.artefact == ["test_marked", "test_measured[1]", "test_measured[2]"]
    for mode in (MODES["n0"], ["--fkit", "-n1"]):
        run = made.run(*mode, "--codspeed", *arguments, artefact=measured)
        assert (run.outcomes, run.artefact) == (plain.outcomes, plain.artefact), mode


def test_durations_counts_all_that_ran(suite: MakeSuite) -> None:
    def counts(text: str) -> list[tuple[str, int]]:
        # total, name, number of times, median, maximum
        rows = re.findall(r"^ *(\S+) +(\S+\.py\S*) +(\d+) +\S+ +\S+$", text, re.MULTILINE)
        assert not [total for total, *_ in rows if total.startswith("-")], text
        return sorted((name, int(number)) for _, name, number in rows)

    made = suite("pytest-durations", test_it=TESTS)
    arguments = ("--pytest-durations=99", "--pytest-durations-min=0")
    plain = counts(made.run(*arguments).text)
    assert len(plain) > 8
    for mode in (MODES["n0"], MODES["session"], ["--fkit", "-n1"]):
        assert counts(made.run(*mode, *arguments).text) == plain, mode


def test_html_reporter_has_all_tests(suite: MakeSuite) -> None:
    def statuses(directory: Path) -> list[tuple[str, str]]:
        path = directory / "output.json"
        found = json.loads(path.read_text())["content"]["suites"]
        path.unlink()
        return sorted(
            (test["test_name"], test["status"])
            for each in found.values()
            for test in each["tests"].values()
        )

    made = suite("reporter", test_it=TESTS)
    plain = made.run(artefact=statuses)
    assert len(plain.artefact) == 5
    for mode in (MODES["n0"], ["--fkit", "-n1"]):
        assert made.run(*mode, artefact=statuses).artefact == plain.artefact, mode


def test_insta_lists_what_it_created(suite: MakeSuite) -> None:
    source = """
        import pytest
        @pytest.mark.parametrize("n", [1, 2])
        def test_new(snapshot, n): assert snapshot() == f"text {n}"
        def test_fails(): assert 0
    """

    def created(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith("CREATE ")]

    made = suite("insta", test_it=source)
    (made.path / "tox.ini").write_text("[pytest]\n")  # with the cache
    for mode in ([], MODES["n0"], ["--fkit", "-n0", "--fkit-isolation=session"]):
        assert len(created(made.run(*mode, "--insta=update").text)) == 2, mode
        shutil.rmtree(made.path / "snapshots")


def test_isort_remembers_what_passed(suite: MakeSuite) -> None:
    made = suite("isort", good="import os\n", bad="import sys\nimport os\n")
    (made.path / "tox.ini").write_text("[pytest]\n")  # with the cache
    # One worker: each reads the cache and writes it back, so that one of two may undo the other's.
    for mode in ([], MODES["n0"], MODES["session"], ["--fkit", "-n1"]):
        made.run(*mode, "--isort", "--cache-clear")
        assert made.run(*mode, "--isort", "good.py").counts() == {
            "setup skipped": 1,
            "teardown passed": 1,
        }, mode


def test_line_profiler_shows_each_test(suite: MakeSuite) -> None:
    source = """
        import product
        def test_one(): assert product.one() == 1
        def test_two(): assert product.one() == 1
        def test_fails(): assert product.one() == 2
    """
    made = suite("line-profiler", product="def one():\n    return 1\n", test_it=source)
    for mode in ([], MODES["n0"]):
        text = made.run(*mode, "--line-profile=product.one").text
        assert len(re.findall("Line Profile result for test_it.py::test_", text)) == 2, mode


def test_mpl_sums_up(suite: MakeSuite) -> None:
    source = """
        import pytest
        import matplotlib
        matplotlib.use("agg")
        from matplotlib.figure import Figure

        @pytest.mark.mpl_image_compare
        @pytest.mark.parametrize("n", [1, 2])
        def test_figure(n, request):
            figure = Figure(figsize=(1, 1))
            if not request.config.getoption("--mpl-generate-path"):
                figure.add_subplot().plot([1, n])
            return figure
    """

    def results(directory: Path) -> Any:
        found = json.loads((directory / "results" / "results.json").read_text())
        return {name: (each["status"], each["rms"]) for name, each in found.items()}

    made = suite("pytest_mpl", test_it=source)
    made.run("--mpl-generate-path=baseline")
    arguments = ("--mpl", "--mpl-generate-summary=json", "--mpl-results-path=results")
    plain = made.compare(*arguments, artefact=results)
    assert len(plain.artefact) == 2
    assert made.run(*MODES["n0"], *arguments, artefact=results).artefact == plain.artefact


def test_opentelemetry_has_the_outcome(suite: MakeSuite) -> None:
    conftest = """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter

        class Exporter(SpanExporter):
            def export(self, spans):
                with open("spans.txt", "a") as file:
                    for span in spans:
                        print(span.name, span.status.status_code.name, file=file)

        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(Exporter()))
        trace.set_tracer_provider(provider)
    """

    def spans(directory: Path) -> list[str]:
        path = directory / "spans.txt"
        found = sorted(path.read_text().splitlines())
        path.unlink()
        return [each for each in found if "teardown" not in each and "crash" not in each]

    made = suite("pytest_opentelemetry", conftest=conftest, test_it=TESTS)
    plain = made.compare(artefact=spans, modes=["n0"])
    assert "test_it.py::test_one OK" in plain.artefact


def test_profiling_combines_all_tests(suite: MakeSuite) -> None:
    def profiled(directory: Path) -> list[str]:
        found = sorted(path.name for path in (directory / "prof").glob("*.prof"))
        return [name for name in found if "crash" not in name]

    plain = suite("profiling", test_it=TESTS).compare("--profile", artefact=profiled)
    assert "combined.prof" in plain.artefact


def test_testmon_runs_what_a_change_concerns(suite: MakeSuite) -> None:
    def known(directory: Path) -> set[tuple[str, str]]:
        with sqlite3.connect(directory / ".testmondata") as data:
            return set(
                data.execute(
                    "select test_name, filename from test_execution"
                    " join test_execution_file_fp on test_execution_id = test_execution.id"
                    " join file_fp on file_fp.id = fingerprint_id"
                    " where filename != 'recorder.py'"
                )
            )

    source = """
        import product
        def test_one(): assert product.one() == 1
        def test_two(): assert product.two() == 2
        def test_none(): pass
    """
    seen: dict[str, Any] = {}
    made = suite("pytest-testmon", test_it=source)
    (made.path / "tox.ini").write_text("[pytest]\n")  # with the cache
    modes = ("n0", "n2")
    for name, mode in {"plain": [], **{each: MODES[each] for each in modes}}.items():
        (made.path / ".testmondata").unlink(missing_ok=True)
        steps = seen[name] = []
        for two in (2, 2, 33):  # of another length: bytecode knows only the second of a change
            (made.path / "product.py").write_text(
                f"def one():\n    return 1\ndef two():\n    return {two}\n"
            )
            run = made.run(*mode, "--testmon", artefact=known)
            steps.append((run.status, run.outcomes, run.artefact))
    assert list(map(len, (outcomes for _, outcomes, _ in seen["plain"]))) == [3, 0, 1]
    for name in modes:
        assert seen[name] == seen["plain"], name


def test_tagging_counts_failures(suite: MakeSuite) -> None:
    source = """
        import pytest
        @pytest.mark.tags("slow", "io")
        @pytest.mark.parametrize("n", [1, 2])
        def test_tagged(n): assert n == 3
        @pytest.mark.tags("slow")
        def test_also(): assert 0
        @pytest.mark.tags("slow")
        def test_passes(): pass
    """
    made = suite("pytest_tagging", test_it=source)
    for mode in ([], MODES["n0"], ["--fkit", "-n0", "--fkit-isolation=session"]):
        text = made.run(*mode).text
        found = re.findall("^(slow|io) - (.)$", text, re.MULTILINE)
        assert sorted(found) == [("io", "2"), ("slow", "3")], mode
