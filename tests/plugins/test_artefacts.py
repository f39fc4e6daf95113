"""Plugins that write files: what tests of each process add to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from comparing import MakeSuite

# --- syrupy -------------------------------------------------------------------------------------

SNAPSHOTS = """
    import pytest
    from syrupy.extensions.json import JSONSnapshotExtension

    @pytest.fixture
    def snapshot_json(snapshot):
        return snapshot.use_extension(JSONSnapshotExtension)

    def test_dict(snapshot):
        assert {{"a": {a}}} == snapshot

    def test_names(snapshot):
        assert 1 == snapshot(name="one")
        assert 2 == snapshot(name="two")

    def test_json(snapshot_json):
        assert {{"b": 2}} == snapshot_json

    @pytest.mark.parametrize("n", [1, 2])
    def test_parameters(snapshot, n):
        assert n == snapshot

    def test_{optional}(snapshot):
        assert "here" == snapshot

    def test_without():
        pass
"""


def snapshots(directory: Path) -> dict[str, str]:
    found = sorted((directory / "__snapshots__").rglob("*"))
    return {path.name: path.read_text() for path in found if path.is_file()}


def summary(text: str) -> str:
    [line] = [line for line in text.splitlines() if " snapshot" in line and line.endswith(".")][:1]
    return line


def rewrite(made: Any, **values: Any) -> None:
    (made.path / "test_it.py").write_text(_dedented(SNAPSHOTS.format(**values)))


def _dedented(text: str) -> str:
    return "\n".join(line[4:] for line in text.splitlines())


def test_syrupy_writes_updates_and_deletes(suite: MakeSuite) -> None:
    made = suite("syrupy", test_it=SNAPSHOTS.format(a=1, optional="extra"))
    seen: dict[str, list[Any]] = {}
    for mode in ([], ["--fkit", "-n0"], ["--fkit", "-n2"], ["--fkit", "-n2", *SESSION]):
        for path in (made.path / "__snapshots__").rglob("*.*"):
            path.unlink()
        steps = seen[" ".join(mode)] = []
        rewrite(made, a=1, optional="extra")
        for arguments, values in (
            (["--snapshot-update"], {"a": 1, "optional": "extra"}),
            ([], {"a": 1, "optional": "extra"}),
            ([], {"a": 2, "optional": "renamed"}),
            (["--snapshot-update"], {"a": 2, "optional": "renamed"}),
            (["--snapshot-warn-unused", "test_it.py::test_dict"], {"a": 2, "optional": "renamed"}),
        ):
            rewrite(made, **values)
            run = made.run(*mode, *arguments, artefact=snapshots)
            steps.append((run.status, run.outcomes, run.artefact, summary(run.text)))
    plain, *others = seen.values()
    for other in others:
        assert other == plain
    assert [status for status, *_ in plain] == [0, 0, 1, 0, 0]
    assert plain[1][3] == "7 snapshots passed."
    assert "1 unused snapshot deleted" in plain[3][3]


def test_syrupy_beside_a_crash(suite: MakeSuite) -> None:
    made = suite("syrupy", test_it=SNAPSHOTS.format(a=1, optional="extra"))
    made.run("--snapshot-update")
    rewrite(made, a=2, optional="extra")
    plain = made.compare(artefact=snapshots)
    assert plain.counts()["call failed"] == 1


SESSION = ["--fkit-isolation=session"]

# --- pytest-bdd ---------------------------------------------------------------------------------

FEATURE = """
Feature: Sums
    Scenario Outline: Two numbers
        Given a number <a>
        Then it is less than <b>
        Examples:
        | a | b |
        | 1 | 2 |
        | 2 | 1 |
"""


def test_bdd_reports_scenarios(suite: MakeSuite) -> None:
    source = """
        from pytest_bdd import given, parsers, scenarios, then
        scenarios("sums.feature")

        @given(parsers.parse("a number {n:d}"), target_fixture="number")
        def number(n): return n

        @then(parsers.parse("it is less than {n:d}"))
        def less(number, n): assert number < n
    """

    def steps(directory: Path) -> Any:
        [feature] = json.loads((directory / "steps.json").read_text())
        return [
            (
                scenario["id"],
                [(each["name"], each["result"]["status"]) for each in scenario["steps"]],
            )
            for scenario in feature["elements"]
        ]

    made = suite("pytest-bdd", test_it=source)
    (made.path / "sums.feature").write_text(FEATURE)
    arguments = ("--cucumberjson=steps.json", "--gherkin-terminal-reporter", "-v")
    plain = made.compare(*arguments, artefact=steps, modes=["n0"])
    assert len(plain.artefact) == 2
    text = made.run("--fkit", "-n0", *arguments).text
    assert text.count("Scenario Outline: Two numbers") == 2


# --- pytest-benchmark ---------------------------------------------------------------------------

BENCHMARKS = """
    import pytest

    def test_fast(benchmark):
        assert benchmark(lambda: 3) == 3

    @pytest.mark.parametrize("size", [10, 20])
    @pytest.mark.benchmark(group="sizes", min_rounds=7)
    def test_sizes(benchmark, size):
        benchmark.extra_info["twice"] = 2 * size
        benchmark(lambda: sum(range(size)))

    def test_pedantic(benchmark):
        benchmark.pedantic(lambda: 1, rounds=4, iterations=3)

    def test_fail(benchmark):
        assert benchmark(lambda: 3) == 4

    def test_raises(benchmark):
        benchmark(lambda: 1 / 0)
"""


def benchmarks(directory: Path) -> Any:
    path = directory / "bench.json"
    if not path.exists() or not path.read_text():
        return None
    report = json.loads(path.read_text())
    path.unlink()
    for each in report["benchmarks"]:
        rounds = each["stats"]["rounds"]
        assert len(each["stats"]["data"]) == rounds > 1
        assert 0 < each["stats"]["min"] <= each["stats"]["mean"] <= each["stats"]["max"]
    return [
        [each[key] for key in ("name", "group", "params", "extra_info", "options")]
        for each in report["benchmarks"]
    ]


@pytest.mark.parametrize("isolation", ["function", "session"])
def test_benchmark_measures_without_workers(suite: MakeSuite, isolation: str) -> None:
    made = suite("benchmark", test_it=BENCHMARKS)
    arguments = ("--benchmark-json=bench.json", "--benchmark-max-time=0.01")
    plain = made.run(*arguments, artefact=benchmarks)
    run = made.run(
        "--fkit", "-n0", f"--fkit-isolation={isolation}", *arguments, artefact=benchmarks
    )
    assert (run.status, run.outcomes, run.artefact) == (1, plain.outcomes, plain.artefact), run.text
    assert [name for name, *_ in plain.artefact] == [
        "test_fast", "test_sizes[10]", "test_sizes[20]", "test_pedantic", "test_fail",
    ]  # fmt: skip
    assert "benchmark 'sizes': 2 tests" in run.text


def test_benchmark_compares_with_a_saved_run(suite: MakeSuite) -> None:
    made = suite("benchmark", test_it=BENCHMARKS)
    made.run("--benchmark-autosave", "--benchmark-max-time=0.01")
    run = made.run(
        "--fkit", "-n0", "--benchmark-compare", "--benchmark-max-time=0.01",
        "--benchmark-compare-fail=min:99999%",
    )  # fmt: skip
    assert "(NOW)" in run.text
    assert "(0001_" in run.text


def test_benchmark_runs_each_function_once_with_workers(suite: MakeSuite) -> None:
    # With xdist the plugin switches itself off, and says so.
    made = suite("benchmark", test_it=BENCHMARKS)
    plain = made.compare("--benchmark-disable")
    (made.path / "test_zz_crash.py").unlink()
    for mode in (["-n2"], ["--fkit", "-n2"], ["--fkit"]):
        run = made.run(*mode, "--benchmark-json=bench.json", artefact=benchmarks)
        assert run.artefact is None
        assert run.outcomes == plain.outcomes
        assert "automatically disabled because xdist plugin is active" in run.text


# --- allure-pytest ------------------------------------------------------------------------------

ALLURE = """
    import allure, pytest

    @pytest.fixture(scope="module")
    def wide():
        with allure.step("in the fixture"):
            pass
        yield

    @pytest.fixture
    def narrow():
        yield

    @allure.title("A title")
    @allure.feature("A feature")
    @allure.severity(allure.severity_level.CRITICAL)
    def test_pass(wide, narrow):
        with allure.step("one"):
            allure.attach("a text", name="attached")
        with allure.step("two"):
            pass

    def test_fail(wide):
        print("printed")
        assert 0

    def test_broken():
        raise ValueError("broken")

    @pytest.mark.parametrize("number", [1, 2])
    def test_parameter(number):
        allure.dynamic.parameter("more", 3)

    @pytest.mark.skip(reason="not now")
    def test_skip():
        pass

    @pytest.mark.xfail
    def test_xfail():
        assert 0
"""


def allure_results(directory: Path) -> Any:
    """What the tests have in their result files; of containers, those of one test alone."""
    results = [json.loads(path.read_text()) for path in directory.glob("allure/*-result.json")]
    names = {result["uuid"]: result["name"] for result in results}
    containers = [
        json.loads(path.read_text()) for path in directory.glob("allure/*-container.json")
    ]
    own = ("host", "thread", "as_id")
    return (
        sorted(
            [
                result["name"], result["status"], result["fullName"], result["historyId"],
                [step["name"] for step in result.get("steps", ())],
                [attachment["name"] for attachment in result.get("attachments", ())],
                sorted([each["name"], each["value"]] for each in result.get("parameters", ())),
                sorted(
                    [label["name"], label["value"]]
                    for label in result["labels"]
                    if label["name"] not in own
                ),
            ]
            for result in results
            if result["name"] != "test_crash"
        ),
        sorted(
            [before["name"], *[names[child] for child in container["children"]]]
            for container in containers
            for before in container.get("befores", ())
            # Each process knows of a wide fixture's tests only those that it ran.
            if len(container.get("children", ())) == 1 and before["name"] != "wide"
        ),
    )  # fmt: skip


def test_allure_has_a_result_of_every_test(suite: MakeSuite) -> None:
    plain = suite("allure_pytest", test_it=ALLURE).compare(
        "--alluredir=allure", "--clean-alluredir", artefact=allure_results
    )
    results, fixtures = plain.artefact
    assert len(results) == 7
    assert fixtures == [["narrow", "A title"]]


# --- pytest-split -------------------------------------------------------------------------------


def test_split_splits_and_stores_durations(suite: MakeSuite) -> None:
    source = """
        import pytest
        @pytest.mark.parametrize("number", range(6))
        def test_it(number):
            assert number != 1
    """

    def stored(directory: Path) -> list[str]:
        path = directory / ".test_durations"
        return sorted(name for name in json.loads(path.read_text()) if "crash" not in name)

    made = suite("pytest-split", test_it=source)
    plain = made.compare("--store-durations", artefact=stored)
    assert len(plain.artefact) == 6
    (made.path / "test_zz_crash.py").unlink()
    parts = [
        set(made.compare("--splits=2", f"--group={group}", crash=False).outcomes)
        for group in (1, 2)
    ]
    assert all(parts)
    assert parts[0] | parts[1] == set(plain.outcomes)
    assert not parts[0] & parts[1]


# --- hypothesis ---------------------------------------------------------------------------------


def test_hypothesis_tries_remembered_examples_first(suite: MakeSuite) -> None:
    source = """
        from hypothesis import given, settings, strategies as st

        @given(st.integers())
        @settings(max_examples=300)
        def test_fail(n):
            with open("tried", "a") as file:
                file.write(f"{n}\\n")
            assert n < 1000

        @given(st.integers())
        def test_pass(n):
            assert n == n
    """
    made = suite("hypothesispytest", test_it=source)
    for mode in ("-n0", "-n2"):
        # An option of the plugin: remembering is hypothesis' own.
        made.run("--fkit", mode, "--hypothesis-verbosity=normal")
        (made.path / "tried").unlink()
        run = made.run("--fkit", mode, "--hypothesis-verbosity=normal")
        tried = (made.path / "tried").read_text().split()
        assert tried[0] == "1000", mode  # the smallest that fails, out of the database
        assert "n=1000" in run.text
