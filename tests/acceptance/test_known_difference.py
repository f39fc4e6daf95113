"""The known difference: tests that hand state on, and the two ways to let them."""

from __future__ import annotations

from typing import Any

import pytest
from comparing import MakeSuite

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
MODES = [["-n0"], ["-n1"]]


def passed(run: Any) -> list[bool]:
    """Whether the first test passed, and the second."""
    return ["call passed" in phases for phases in run.outcomes.values()]


@pytest.mark.parametrize("mode", MODES, ids=["n0", "n1"])
@pytest.mark.parametrize("state", SUITES)
def test_state_is_not_handed_on(suite: MakeSuite, state: str, mode: list[str]) -> None:
    made = suite(test_it=SUITES[state])
    assert passed(made.run()) == [True, True]
    assert passed(made.run("--fkit", *mode)) == [True, False]


@pytest.mark.parametrize("mode", MODES, ids=["n0", "n1"])
@pytest.mark.parametrize("state", SUITES)
def test_the_option_lets_a_module_share_a_process(
    suite: MakeSuite, state: str, mode: list[str]
) -> None:
    made = suite(test_it=SUITES[state])
    run = made.run("--fkit", *mode, "--fkit-isolation=module")
    assert (run.status, passed(run)) == (0, [True, True])


@pytest.mark.parametrize("mode", MODES, ids=["n0", "n1"])
def test_the_mark_lets_a_class_share_a_process(suite: MakeSuite, mode: list[str]) -> None:
    made = suite(test_it=CLASS.format(mark='isolation="class"'))
    run = made.run("--fkit", *mode)
    assert (run.status, passed(run)) == (0, [True, True])


@pytest.mark.parametrize("mode", MODES, ids=["n0", "n1"])
def test_what_a_test_spoils_is_gone_with_its_process(suite: MakeSuite, mode: list[str]) -> None:
    made = suite(test_it=SPOILED)
    assert passed(made.run()) == [True, False]
    assert passed(made.run("--fkit", *mode)) == [True, True]
    assert passed(made.run("--fkit", *mode, "--fkit-isolation=module")) == [True, False]


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
