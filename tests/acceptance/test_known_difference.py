"""The known difference: tests that hand state on, and the two ways to let them."""

from __future__ import annotations

import textwrap
from typing import Any, Callable

import pytest
from comparing import MakeSuite
from inner import InnerRun, run_pytest, write_files

CLASS = """
    import pytest

    @pytest.mark.fkit({mark})
    class TestSteps:
        seen = []

        def test_one(self):
            self.seen.append(1)

        def test_two(self):
            assert self.seen == [1]
"""

MODULE = """
    seen = []

    def test_one():
        seen.append(1)

    def test_two():
        assert seen == [1]
"""

WIDE = """
    import pytest

    @pytest.fixture(scope="module")
    def wide():
        return []

    def test_one(wide):
        wide.append(1)

    def test_two(wide):
        assert wide == [1]
"""

# The other direction: what a test leaves in memory breaks the next one in plain pytest only.
SPOILED = """
    import os

    def test_one():
        os.environ["SPOILED"] = "yes"

    def test_two():
        assert "SPOILED" not in os.environ
"""

SUITES = {"class": CLASS.format(mark=""), "module": MODULE, "wide": WIDE}
OTHERS = {"mark": CLASS.format(mark='isolation="class"'), "spoiled": SPOILED}
MODES = [["-n0"], ["-n1"]]

Runs = Callable[..., InnerRun]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Runs of all of them, one for each command line."""
    texts = {**SUITES, **OTHERS}
    files = {f"test_{name}.py": textwrap.dedent(text) for name, text in texts.items()}
    directory = write_files(tmp_path_factory.mktemp("all"), files)
    ended: dict[tuple[str, ...], InnerRun] = {}

    def run(*arguments: str) -> InnerRun:
        if arguments not in ended:
            ended[arguments] = run_pytest(directory, "-p", "no:cacheprovider", *arguments)
        return ended[arguments]

    return run


def passed(run: InnerRun, name: str) -> list[bool]:
    """Whether the first test of a suite passed, and the second."""
    outcomes = run.outcomes
    assert len(outcomes) == 2 * len({**SUITES, **OTHERS}), run.out
    found = {
        nodeid.rpartition("::")[2]: outcome
        for nodeid, outcome in outcomes.items()
        if nodeid.startswith(f"test_{name}.py::")
    }
    assert set(found.values()) <= {"PASSED", "FAILED"}
    return [found[test] == "PASSED" for test in ("test_one", "test_two")]


def failing(run: InnerRun) -> set[str]:
    """The suites in which not all passed; the exit status says whether there are any."""
    found = {name for name in (*SUITES, *OTHERS) if not all(passed(run, name))}
    assert run.status == (1 if found else 0)
    return found


@pytest.mark.parametrize("mode", MODES, ids=["n0", "n1"])
@pytest.mark.parametrize("state", SUITES)
def test_state_is_not_handed_on(runs: Runs, state: str, mode: list[str]) -> None:
    assert passed(runs(), state) == [True, True]
    assert passed(runs("--fkit", *mode), state) == [True, False]


@pytest.mark.parametrize("mode", MODES, ids=["n0", "n1"])
@pytest.mark.parametrize("state", SUITES)
def test_the_option_lets_a_module_share_a_process(runs: Runs, state: str, mode: list[str]) -> None:
    run = runs("--fkit", *mode, "--fkit-isolation=module")
    assert passed(run, state) == [True, True]
    assert failing(run) == {"spoiled"}


@pytest.mark.parametrize("mode", MODES, ids=["n0", "n1"])
def test_the_mark_lets_a_class_share_a_process(runs: Runs, mode: list[str]) -> None:
    run = runs("--fkit", *mode)
    assert passed(run, "mark") == [True, True]
    assert failing(run) == set(SUITES)


@pytest.mark.parametrize("mode", MODES, ids=["n0", "n1"])
def test_what_a_test_spoils_is_gone_with_its_process(runs: Runs, mode: list[str]) -> None:
    assert passed(runs(), "spoiled") == [True, False]
    assert passed(runs("--fkit", *mode), "spoiled") == [True, True]
    assert passed(runs("--fkit", *mode, "--fkit-isolation=module"), "spoiled") == [True, False]


def test_class_scope_ends_with_a_function_that_is_in_no_class(suite: MakeSuite) -> None:
    source = """
        import pytest

        def ran(text):
            with open("ran", "a") as file:
                file.write(text + "\\n")

        @pytest.fixture(scope="class", params=[1, 2])
        def scoped(request):
            ran(f"setup for {request.node.name} {request.param}")
            yield
            ran("teardown")

        def test_one(scoped): ran("one")
        def test_two(scoped): ran("two")

        class TestClass:
            def test_three(self, scoped): ran("three")
            def test_four(self, scoped): assert 0
    """

    def order(directory: Any) -> str:
        text = str((directory / "ran").read_text())
        (directory / "ran").unlink()
        return text

    plain = suite(test_it=source).compare(artefact=order, modes=["n0"], crash=False)
    assert plain.artefact.count("setup") == plain.artefact.count("teardown") == 6
