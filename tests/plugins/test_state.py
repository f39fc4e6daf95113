"""Plugins that judge tests by earlier ones, and those that say something to workers."""

from __future__ import annotations

import json
from pathlib import Path

from comparing import CRASH, MakeSuite

DEPENDENCY = """
    import pytest

    @pytest.mark.dependency()
    def test_first(): pass

    def test_between(): pass

    @pytest.mark.dependency()
    def test_fails(): assert 0

    @pytest.mark.dependency(depends=["test_first"])
    class TestClass:
        @pytest.mark.dependency()
        def test_one(self): pass

        @pytest.mark.dependency(depends=["TestClass::test_one"])
        def test_two(self): pass

    @pytest.mark.dependency(depends=["test_fails"])
    def test_skipped(): pass
"""

ELSEWHERE = """
    import pytest
    from pytest_dependency import depends

    @pytest.mark.dependency(depends=["test_a.py::TestClass::test_two"], scope="session")
    def test_far(): pass

    def test_asks(request):
        depends(request, ["test_far"])
"""


def test_dependency_skips_what_depends_on_failures(suite: MakeSuite) -> None:
    made = suite("pytest_dependency", test_a=DEPENDENCY, test_b=ELSEWHERE)
    plain = made.compare()
    assert plain.counts()["call passed"] == 6
    assert plain.counts()["setup skipped"] == 1


def test_harvest_shows_results_of_other_tests(suite: MakeSuite) -> None:
    source = """
        import pytest

        @pytest.mark.parametrize("number", [1, 2])
        def test_puts(number, results_bag): results_bag.number = number

        def test_looks(module_results_dct):
            bags = [each["fixtures"]["results_bag"] for each in module_results_dct.values()]
            assert [bag.number for bag in bags] == [1, 2]
    """
    fails = "def test_fails(): assert 0\n"
    plain = suite("harvest", test_a=source, test_b=fails).compare(modes=["n0"])
    assert plain.counts()["call passed"] == 3


def test_depends_orders_and_skips(suite: MakeSuite) -> None:
    source = """
        import pytest

        @pytest.mark.depends(on=["test_later", "test_b.py::test_elsewhere"])
        def test_after(): pass

        def test_later(): pass

        @pytest.mark.depends(name="bad")
        def test_fails(): assert 0

        @pytest.mark.depends(on=["bad"])
        def test_skipped(): pass
    """
    elsewhere = "def test_elsewhere(): pass\n"
    # Where all tests share a process, the crash takes along what the plugin knew.
    plain = suite("pytest_depends", test_a=source, test_b=elsewhere).compare(modes=["n0", "n2"])
    assert plain.counts()["call passed"] == 3
    assert plain.counts()["call skipped"] == 1


def test_steps_go_on_where_the_last_one_ended(suite: MakeSuite) -> None:
    source = """
        import pytest
        from pytest_steps import depends_on, test_steps

        @test_steps("one", "two", "three")
        def test_generator():
            seen = [1]
            yield
            assert seen == [2]
            yield
            yield

        def step_puts(data): data.value = 1
        def step_fails(data): assert data.value == 2
        @depends_on(step_fails)
        def step_skipped(data): pass

        @test_steps(step_puts, step_fails, step_skipped)
        def test_parameters(test_step, steps_data):
            test_step(steps_data)

        def test_plugin_is_there(request):
            assert request.config.pluginmanager.has_plugin("pytest_steps.plugin")
    """
    plain = suite("pytest_steps.plugin", test_a=source).compare()
    assert plain.counts() == {
        "setup passed": 7, "call passed": 3, "call failed": 2, "call skipped": 2,
        "teardown passed": 7,
    }  # fmt: skip


def test_sybil_documents_have_one_namespace(suite: MakeSuite) -> None:
    made = suite(
        "documents",
        documents="""
            import pytest
            from sybil import Sybil
            from sybil.parsers.rest import DocTestParser, PythonCodeBlockParser

            @pytest.fixture(scope="module")
            def wide():
                return 7

            pytest_collect_file = Sybil(
                parsers=[DocTestParser(), PythonCodeBlockParser()], pattern="*.rst",
                fixtures=["wide"], setup=lambda namespace: namespace.update(given=1),
            ).pytest()
        """,
    )
    document = ">>> x = given\n\nText.\n\n>>> x + wide\n8\n\n.. code-block:: python\n\n    y = x\n"
    (made.path / "a.rst").write_text(f"{document}\n>>> y + 1\n2\n>>> y\n2\n")
    plain = made.compare()
    assert plain.counts()["call passed"] == 4
    assert plain.counts()["call failed"] == 1


CELLS = (
    ("x = 1", None), ("x + 1", "2"), ("x + 2", "4"), ("x + 3", "4"),
    ("import product; product.double(2)", "4"),
)  # fmt: skip


def notebook() -> str:
    cells = [
        {
            "cell_type": "code", "execution_count": 1, "id": f"cell{number}", "metadata": {},
            "source": source,
            "outputs": [] if shown is None else [
                {"output_type": "execute_result", "execution_count": 1, "metadata": {},
                 "data": {"text/plain": shown}}
            ],
        }
        for number, (source, shown) in enumerate(CELLS)
    ]  # fmt: skip
    kernel = {"name": "python3", "display_name": "Python", "language": "python"}
    return json.dumps(
        {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    )


def test_nbval_runs_a_notebook_in_one_kernel(suite: MakeSuite) -> None:
    made = suite("nbval", "pytest_cov", product="def double(n):\n    return 2 * n\n")
    for name in ("a.ipynb", "b.ipynb"):
        (made.path / name).write_text(notebook())

    def missed(directory: Path) -> list[int]:
        report = json.loads((directory / "coverage.json").read_text())
        found: list[int] = report["files"]["product.py"]["missing_lines"]
        return found

    arguments = "--nbval", "--nbval-current-env", "--cov=product", "--cov-report=json"
    plain = made.compare(*arguments, artefact=missed)
    assert plain.counts()["call passed"] == 8
    assert plain.counts()["call failed"] == 2
    assert plain.artefact == []  # the kernels counted


def test_forked_is_satisfied(suite: MakeSuite) -> None:
    source = """
        import pytest
        @pytest.fixture(scope="module")
        def wide(): yield 1
        @pytest.mark.forked
        def test_passes(wide): assert wide == 1
        def test_fails(): assert 0
    """
    made = suite("pytest_forked", test_a=source)
    for mode in ("-n0", "-n2"):
        run = made.run("--fkit", mode, "--forked")
        assert run.outcomes == {
            "test_a.py::test_passes": ["setup passed", "call passed", "teardown passed"],
            "test_a.py::test_fails": ["setup passed", "call failed", "teardown passed"],
        }, run.text


THREAD = """
    import threading
    threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


def test_random_order_in_fresh_interpreters(suite: MakeSuite) -> None:
    source = THREAD + "".join(f"    def test_{each}(): assert {each}\n" for each in range(6))
    made = suite("random_order.plugin", test_a=source)
    arguments = "--random-order", "--random-order-seed=3"
    plain = made.compare(*arguments)
    (made.path / CRASH.partition("::")[0]).unlink()  # the order depends on all there are
    assert list(made.run("--fkit", "-n0", *arguments).outcomes) == list(plain.outcomes)


def test_retry_in_fresh_interpreters(suite: MakeSuite) -> None:
    source = (
        THREAD
        + """
    import pytest
    tries = []
    @pytest.mark.flaky(retries=1)
    def test_second_try():
        tries.append(1)
        assert len(tries) == 2
    def test_fails(): assert 0
    """
    )
    plain = suite("pytest_retry.retry_plugin", test_a=source).compare(modes=["n0"])
    assert plain.counts()["call passed"] == 1


def test_nunit_has_its_fixtures(suite: MakeSuite) -> None:
    source = """
        def test_adds(record_nunit_property, add_nunit_attachment):
            record_nunit_property("name", "value")
            add_nunit_attachment("file.txt", "a file")
        def test_fails(record_nunit_property): assert 0
    """
    plain = suite("nunit", test_it=source).compare("--nunit-xml=nunit.xml", modes=["n0"])
    assert plain.counts()["call passed"] == 1
