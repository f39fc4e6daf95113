"""A run that takes too long: what ends within the grace counts, the rest is said and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from inner import run_pytest
from inner_runs import Outcome, started

LIMITS = (3, 6, 12, 24)
"""Seconds; a machine that has not begun the first tests by then gets the next one."""

_CONFTEST = """
    import os, time
    from pathlib import Path

    BEGAN = Path(os.environ["FKIT_INNER_DIR"]) / "began"

    def pytest_configure(config):
        if not hasattr(config, "workerinput"):
            BEGAN.write_text(str(time.time()))
"""

_SUITE = """
    import os, time
    from pathlib import Path
    import pytest
    from conftest import BEGAN

    @pytest.fixture(scope="module")
    def wide():
        yield
        (BEGAN.parent / "torn-down").write_text("yes")

    def test_first(wide):
        pass

    def test_ends_by_itself(wide):
        (BEGAN.parent / "begun").write_text("yes")
        while time.time() < float(BEGAN.read_text()) + float(os.environ["LIMIT"]) + 0.5:
            time.sleep(0.05)
"""

_LATER = """
    import os, time
    import pytest
    from conftest import BEGAN

    @pytest.fixture(scope="module")
    def other():
        yield
        (BEGAN.parent / "torn-down-too").write_text("yes")

    def test_takes_for_ever(other):
        (BEGAN.parent / "hangs").write_text("yes")
        while True:
            time.sleep(0.05)

    @pytest.mark.parametrize("number", range(3))
    def test_more(number, other):
        pass
"""

_AGAIN = {"FKIT_INNER_DIR": ".", "LIMIT": "0"}
_FILES = {"conftest.py": _CONFTEST, "test_t.py": _SUITE, "test_u.py": _LATER}


def _event(directory: Path) -> dict[str, object]:
    lines = (directory / "run.jsonl").read_text().splitlines()
    (found,) = [each for each in map(json.loads, lines) if each["event"] == "session_timeout"]
    return dict(found)


def _run(directory: Path, workers: str) -> tuple[Outcome, Path, int]:
    """A run in which the tests began that are to run at its limit."""
    expected = ("begun", "hangs") if workers == "-n2" else ("begun",)
    for limit in LIMITS:
        place = directory / f"{workers}-{limit}"
        place.mkdir()
        options = (f"--fkit-session-timeout={limit}", "--fkit-grace=4", "--fkit-journal=run.jsonl")
        env = {"LIMIT": str(limit)}
        with started(place, _FILES, "--fkit", workers, "--dist=loadfile", *options, env=env) as run:
            outcome = run.wait(180.0)
        if all((place / name).exists() for name in expected):
            break
    return outcome, place, limit


_MORE = [f"test_u.py::test_more[{number}]" for number in range(3)]
_HANGS = "test_u.py::test_takes_for_ever"


@pytest.mark.parametrize(
    ("workers", "interrupted", "unstarted"),
    [("-n2", [_HANGS], _MORE), ("-n0", [], [*_MORE, _HANGS])],
)
def test_a_run_that_takes_too_long(
    tmp_path: Path, workers: str, interrupted: list[str], unstarted: list[str]
) -> None:
    outcome, directory, limit = _run(tmp_path, workers)
    out = outcome.stdout
    assert outcome.status == pytest.ExitCode.INTERRUPTED, out
    assert f"the run took longer than --fkit-session-timeout={limit}" in out
    for name in ("test_first", "test_ends_by_itself"):
        assert outcome.reports(name).outcome == "passed", out
    lines = out.splitlines()
    for tests, title in ((interrupted, "interrupted"), (unstarted, "not begun")):
        if tests:
            plural = "test" if len(tests) == 1 else "tests"
            at = lines.index(f"{len(tests)} {plural} {title}:")
            assert sorted(lines[at + 1 : at + 1 + len(tests)]) == [f"  {each}" for each in tests]
    assert any(line.endswith("run.jsonl runs these tests") for line in lines)
    assert (directory / "torn-down").exists()
    assert (directory / "torn-down-too").exists() == bool(interrupted)
    event = _event(directory)
    assert event["interrupted"] == interrupted
    assert sorted(event["unstarted"]) == unstarted  # type: ignore[call-overload]
    if workers == "-n0":
        _resume(directory)


def _resume(directory: Path) -> None:
    text = (directory / "test_u.py").read_text().replace("while True", "while False")
    (directory / "test_u.py").write_text(text)
    resumed = run_pytest(directory, "--fkit", "-n0", "--fkit-resume=run.jsonl", "-rA", env=_AGAIN)
    assert resumed.status == 0, resumed.out
    assert "6 passed" in resumed.lines[-1]
    assert len(resumed.outcomes) == 4  # those that this run ran
