"""Plugins that run tests again in a process, or say at the end what they collected in memory."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from comparing import MODES, MakeSuite, Run

FLAKY = """
    from flaky import flaky
    tries = []

    @flaky(max_runs=3, min_passes=1)
    def test_third():
        tries.append(1)
        assert len(tries) == 3

    @flaky
    def test_never(): assert 0

    def test_plain(): pass
"""


def flaky_report(run: Run) -> list[str]:
    """What flaky says in the terminal, in any order."""
    found = re.findall(r"^test_\w+ (?:passed|failed).*", run.text, re.MULTILINE)
    return sorted(found)


@pytest.mark.parametrize("mode", MODES)
def test_flaky_runs_tests_again_and_tells_of_it(suite: MakeSuite, mode: str) -> None:
    made = suite("flaky", test_a=FLAKY)
    plain = made.compare(modes=[mode])
    assert plain.counts()["call passed"] == 2
    assert len(flaky_report(plain)) == 5
    run = made.run(*MODES[mode])
    assert "ERROR test_zz_crash.py::test_crash - exit status 3" in run.text
    assert flaky_report(run) == flaky_report(plain)


@pytest.mark.parametrize("mode", MODES)
def test_retry_runs_tests_again_and_tells_of_it(suite: MakeSuite, mode: str) -> None:
    source = """
        import pytest
        tries = []
        @pytest.mark.flaky(retries=2)
        def test_third_try():
            tries.append(1)
            assert len(tries) == 3
        @pytest.mark.flaky(retries=1)
        def test_fails(): assert 0
    """
    made = suite("pytest_retry.retry_plugin", test_a=source)
    plain = made.compare(modes=[mode])
    assert plain.counts()["call passed"] == 1
    run = made.run(*MODES[mode])
    told, tells = (
        sorted(line for line in each.text.splitlines() if "attempt" in line)
        for each in (plain, run)
    )
    assert len(told) == 5
    assert tells == told


def test_what_fresh_interpreters_collect_is_told(suite: MakeSuite) -> None:
    made = suite("flaky", test_a=FLAKY)
    run = made.run("--fkit", "-n0", "--fkit-start-method=spawn")
    assert len(flaky_report(run)) == 5


@pytest.mark.parametrize("mode", MODES)
def test_mpl_compares_and_writes_what_it_found(suite: MakeSuite, mode: str) -> None:
    source = """
        import matplotlib
        matplotlib.use("agg")
        import matplotlib.pyplot as plt
        import pytest

        def figure(numbers):
            made, axes = plt.subplots()
            axes.plot(numbers)
            return made

        @pytest.mark.mpl_image_compare
        def test_same(): return figure([1, 2])
        @pytest.mark.mpl_image_compare
        def test_other(): return figure([VALUE, 3])
    """

    def found(directory: Path) -> Any:
        path = directory / "results" / "results.json"
        results = json.loads(path.read_text()) if path.exists() else {}
        return {name: each["status"] for name, each in results.items() if "crash" not in name}

    made = suite("pytest_mpl", test_a=source.replace("VALUE", "2"))
    made.run("--mpl-generate-path=baseline")
    assert (made.path / "baseline" / "test_same.png").exists()
    suite(test_a=source.replace("VALUE", "1"))
    arguments = (
        "--mpl", "--mpl-baseline-path=baseline", "--mpl-results-path=results",
        "--mpl-generate-summary=json",
    )  # fmt: skip
    plain = made.compare(*arguments, artefact=found, modes=[mode])
    assert sorted(plain.artefact.values()) == ["failed", "passed"]


SNAPSHOTS = """
    from inline_snapshot import snapshot

    def test_create(): assert 1 + 1 == snapshot()
    def test_wrong(): assert 5 == snapshot(4)
    def test_fails(): assert 0
"""


def test_inline_snapshot_writes_what_it_saw(suite: MakeSuite) -> None:
    made = suite("inline_snapshot", test_a=SNAPSHOTS)
    before = (made.path / "test_a.py").read_text()
    plain = made.run("--inline-snapshot=create,fix")
    wanted = (made.path / "test_a.py").read_text()
    assert "snapshot(2)" in wanted
    assert "snapshot(5)" in wanted
    (made.path / "test_a.py").write_text(before)
    (made.path / "test_0_crash.py").write_text("import os\ndef test_crash(): os._exit(3)\n")
    run = made.run("--fkit", "-n0", "--inline-snapshot=create,fix")
    assert "exit status 3" in run.text
    assert run.outcomes.pop("test_0_crash.py::test_crash")
    assert run.outcomes == plain.outcomes
    assert (made.path / "test_a.py").read_text() == wanted
