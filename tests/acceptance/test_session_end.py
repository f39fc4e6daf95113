"""What ends with pytest's session ends in each process, for what was begun there."""

from __future__ import annotations

import pytest
from comparing import MakeSuite

CONFTEST = """
    import os
    import pytest

    def note(text):
        with open("notes.txt", "a") as file:
            file.write(text + "\\n")

    def pytest_configure(config):
        if not hasattr(config, "workerinput"):
            config.add_cleanup(lambda: note("begun by the process of pytest itself"))

    @pytest.fixture(scope="session")
    def server(request):
        request.config.add_cleanup(lambda: note("server stopped"))
        with open("log.csv", "a") as file:
            yield file
        if hasattr(request.config, "workeroutput"):
            request.config.workeroutput["server"] = {"seconds": 5}

    def pytest_testnodedown(node):
        note(f"told {node.workeroutput['server']} {node.workeroutput['test']}")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(item, call):
        outcome = yield
        item.stash[REPORTED] = outcome.get_result().outcome

    REPORTED = pytest.StashKey()
"""

TESTS = """
    import gc
    import pytest

    def test_a(server, request):
        server.write("a\\n")
        if hasattr(request.config, "workeroutput"):
            request.config.workeroutput["test"] = {1, 2}
    def test_b(server, request):
        server.write("b\\n")
        request.config.add_cleanup(lambda: open("notes.txt", "a").write("from a test\\n"))
"""

FINISHES = """
    def pytest_sessionfinish(session, exitstatus):
        for item in getattr(session, "items", ()):
            note(f"{item.name} {item.stash[REPORTED]} {int(exitstatus)}")
        session.exitstatus = 9
"""

LEAVES = """
    class Node: pass
    def test_leaves():
        node = Node()
        node.me, node.file = node, open("/dev/null")
    def test_raises():
        class Bad:
            def __del__(self): raise ValueError("in a destructor")
        bad = Bad()
        bad.me = bad
    def test_cleanup(request):
        request.config.add_cleanup(lambda: 1 / 0)
"""


@pytest.mark.parametrize("isolation", ["function", "session"])
@pytest.mark.parametrize("mode", ["-n0", "-n1"])
def test_cleanups_buffers_and_outputs(suite: MakeSuite, mode: str, isolation: str) -> None:
    finishes = isolation == "session"
    made = suite(conftest=CONFTEST + FINISHES * finishes, test_it=TESTS)
    run = made.run("--fkit", mode, f"--fkit-isolation={isolation}")
    assert run.status == (9 if finishes else 0), run.text
    assert (made.path / "log.csv").read_text() == "a\nb\n"
    notes = (made.path / "notes.txt").read_text().splitlines()
    finished = ["test_a passed 0", "test_b passed 0"] if finishes else []
    own = ["begun by the process of pytest itself"]
    told = ["told {'seconds': 5} {1, 2}"] if mode == "-n1" else []
    assert notes == [*finished, "from a test", "server stopped", *told, *own], run.text


@pytest.mark.skipif(pytest.version_tuple < (8, 4), reason="pytest itself does not look")
@pytest.mark.parametrize("options", [("-n0",), ("-n1",), ("-n0", "--fkit-isolation=session")])
def test_what_is_raised_at_the_end_counts(suite: MakeSuite, options: tuple[str, ...]) -> None:
    run = suite(test_it=LEAVES).run("--fkit", *options, "-Werror")
    assert run.counts() == {"setup passed": 3, "call passed": 3, "teardown passed": 3}
    assert run.status == 1
    assert "raised at the end of test processes" in run.text
    assert "ZeroDivisionError" in run.text
    for text in ("in a destructor", "unclosed file") if options[0] != "-n0" else ():
        assert text in run.text


def test_nothing_is_looked_for_where_warnings_are_no_errors(suite: MakeSuite) -> None:
    run = suite(test_it=LEAVES.partition("    def test_cleanup")[0]).run("--fkit", "-n0")
    assert run.status == 0, run.text
    assert "raised when the processes" not in run.text
