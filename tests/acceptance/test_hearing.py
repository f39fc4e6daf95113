"""Which processes tell plugins that a test begins, and that they write to the terminal once."""

from __future__ import annotations

import pytest
from comparing import MakeSuite

KEEPS_STATE = """
    import pytest
    CURRENT = []
    def pytest_runtest_logstart(nodeid):
        CURRENT.append(nodeid)
        with open("begun.txt", "a") as file:
            file.write(nodeid + "\\n")
    def pytest_runtest_logfinish(nodeid): CURRENT.remove(nodeid)
    @pytest.fixture
    def current(): return CURRENT
"""

REPORTS = """
    import pytest, sys
    CURRENT = []
    class Reporter:
        def __init__(self, config): self.config, self.kept = config, sys.stdout.buffer
        def line(self, text):
            reporter = self.config.pluginmanager.getplugin("terminalreporter")
            reporter.ensure_newline()
            reporter.write_line(text)
        def pytest_sessionstart(self): self.line("SESSION STARTS")
        def pytest_collection_finish(self): self.line("COLLECTED")
        def pytest_runtest_logstart(self, nodeid):
            CURRENT.append(nodeid)
            self.line(f"BEGUN {nodeid}")
            print("PRINTED", nodeid)
            self.kept.write(f"WRITTEN {nodeid}\\n".encode())  # as PyCharm's does
            self.kept.flush()
        def pytest_runtest_setup(self, item): self.line(f"SET UP {item.name}")
        def pytest_runtest_logreport(self, report):
            if report.when == "call": self.line(f"REPORTED {CURRENT[-1]}")
        def pytest_sessionfinish(self): self.line("SESSION ENDS")
    def pytest_configure(config): config.pluginmanager.register(Reporter(config))
    @pytest.fixture
    def current(): return CURRENT
"""

TESTS = """
    def test_it(current): assert current == ["test_it.py::test_it"]
"""


@pytest.mark.parametrize("mode", ["-n0", "-n1"])
def test_who_keeps_what_runs_is_told_where_it_runs(suite: MakeSuite, mode: str) -> None:
    made = suite(conftest=KEEPS_STATE, test_it=TESTS)
    run = made.run("--fkit", mode)
    assert run.counts() == {"setup passed": 1, "call passed": 1, "teardown passed": 1}, run.text
    # In the controller, too, as under xdist.
    begun = (made.path / "begun.txt").read_text().splitlines()
    assert begun == ["test_it.py::test_it"] * (2 if mode == "-n1" else 1)


WARNS = """
    import warnings
    def pytest_runtest_logreport(report):
        if report.when == "call": warnings.warn(f"heard of {report.nodeid}", DeprecationWarning)
"""


@pytest.mark.parametrize("mode", ["-n0", "-n1"])
def test_what_plugins_warn_of_when_they_hear_is_said_of_the_test(
    suite: MakeSuite, mode: str
) -> None:
    made = suite(conftest=WARNS, test_it="def test_it(): pass\n")
    said = [made.run(*ours, mode).text.count("heard of test_it") for ours in ((), ("--fkit",))]
    assert said[0] == said[1] > 0


WRITES = """
    import pytest
    def note(line):
        with open("heard.txt", "a") as file:
            file.write(line + "\\n")
    @pytest.fixture(autouse=True)
    def begun(request): note(f"runs {request.node.name}")
    def pytest_runtest_logreport(report): note(f"{report.when} {report.location[2]}")
"""

THREE = """
    import pytest
    @pytest.mark.parametrize("number", range(3))
    def test_it(number): pass
"""


@pytest.mark.parametrize("mode", ["-n0", "-n1"])
def test_plugins_hear_of_a_test_before_the_next_one_in_its_process_begins(
    suite: MakeSuite, mode: str
) -> None:
    made = suite(conftest=WRITES, test_it=THREE)
    run = made.run("--fkit", mode, "--fkit-isolation=session")
    assert run.status == 0, run.text
    lines = (made.path / "heard.txt").read_text().splitlines()
    for number in range(2):
        begins = lines.index(f"runs test_it[{number + 1}]")
        assert f"teardown test_it[{number}]" in lines[:begins], lines


@pytest.mark.parametrize("modes", [(), ("-n1",)])
def test_lines_of_plugins_appear_as_often_as_without_us(
    suite: MakeSuite, modes: tuple[str, ...]
) -> None:
    made = suite(conftest=REPORTS, test_it=TESTS)
    words = [
        "SESSION STARTS",
        "COLLECTED",
        "BEGUN",
        "PRINTED",
        "WRITTEN",
        "SET UP",
        "REPORTED",
        "SESSION ENDS",
    ]
    plain, ours = made.run(*modes), made.run("--fkit", *(modes or ("-n0",)))
    assert ours.outcomes == plain.outcomes, ours.text
    assert {word: ours.text.count(word) for word in words} == {
        word: plain.text.count(word) for word in words
    }, ours.text
