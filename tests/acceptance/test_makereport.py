"""Reports that we make ourselves pass through the hook in which plugins add to reports."""

from __future__ import annotations

import json

import pytest
from comparing import MakeSuite

CONFTEST = """
    import json, os
    import pytest

    KEY = pytest.StashKey()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(item, call):
        report = yield
        report.duration += 100
        item.stash[KEY] = call.when
        report.description = item.function.__doc__
        report.raised = str(call.excinfo.value) if call.excinfo else None
        report.fixtures = sorted(item.funcargs)
        report.judged = report.outcome
        if item.name == "test_odd_hook" and call.excinfo:
            item.funcargs["driver"].screenshot()
        return report

    def pytest_runtest_logreport(report):
        if os.environ.get("PYTEST_XDIST_WORKER"):
            return
        name = report.nodeid.partition("::")[2]
        if report.duration < 100:
            open("short", "w").close()
        with open("heard.jsonl", "a") as file:
            heard = [name, report.when, report.judged, report.description, report.raised]
            file.write(json.dumps(heard) + "\\n")

    def pytest_sessionfinish(session):
        if getattr(session, "items", None):
            with open("stashed", "w") as file:
                for item in session.items:
                    print(item.name, item.stash.get(KEY, None), file=file)
"""

TESTS = """
    import os
    import pytest

    @pytest.fixture
    def broken(): os._exit(3)

    def test_call():
        "in its call"
        os._exit(3)
    def test_setup(broken): "in its setup"
    @pytest.mark.xfail
    def test_expected():
        "as expected"
        os._exit(3)
    def test_odd_hook():
        "with a hook that needs the process"
        os._exit(3)
    @pytest.mark.fkit(gpus=99)
    def test_refused(): "has no GPUs"
    def test_passes(): "passes"
"""

DIED = "exit status 3"

NOTES = """
    import pytest

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(item, call):
        report = yield
        if call.when == "setup": item.noted = []
        item.noted.append(call.when)
        report.user_properties.append(("noted", " ".join(item.noted)))
        return report
"""


@pytest.mark.parametrize("mode", ["-n0", "-n1"])
def test_what_a_plugin_notes_at_setup_it_has_for_a_death(suite: MakeSuite, mode: str) -> None:
    made = suite("notes", notes=NOTES, test_it="import os\ndef test_it(): os._exit(3)\n")
    run = made.run("--fkit", mode, "--junitxml=junit.xml")
    assert "could not add" not in run.text
    assert 'name="noted" value="setup call"' in (made.path / "junit.xml").read_text()


@pytest.mark.parametrize("mode", ["-n0", "-n1"])
def test_what_hooks_add_to_reports_is_on_ours(suite: MakeSuite, mode: str) -> None:
    made = suite(conftest=CONFTEST, test_it=TESTS)
    run = made.run("--fkit", mode, "-rA")
    heard = {
        (name, when): rest
        for line in (made.path / "heard.jsonl").read_text().splitlines()
        for name, when, *rest in [json.loads(line)]
    }
    assert "INTERNALERROR" not in run.text
    assert not (made.path / "short").exists()
    assert "test_passes teardown" in (made.path / "stashed").read_text().splitlines()
    assert heard["test_call", "setup"] == ["passed", "in its call", None]
    assert heard["test_call", "call"] == ["failed", "in its call", DIED]
    assert heard["test_call", "teardown"] == ["passed", "in its call", None]
    assert heard["test_setup", "setup"] == ["failed", "in its setup", DIED]
    assert heard["test_expected", "call"] == ["skipped", "as expected", DIED]
    assert heard["test_odd_hook", "call"] == ["failed", "with a hook that needs the process", DIED]
    assert "pytest_runtest_makereport could not add to this report:" in run.text
    assert "KeyError: 'driver'" in run.text
    judged, description, raised = heard["test_refused", "setup"]
    assert (judged, description) == ("skipped", "has no GPUs")
    assert "needs 99 GPUs" in raised
    assert run.counts()["call failed"] == 2


DEADLY = """
    import ctypes, time
    import pytest

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(item, call):
        report = yield
        look(item)
        return report

    def look(item):
        if item.name == "test_dies":
            ctypes.string_at(0)
        if item.name == "test_hangs":
            time.sleep(1000)
"""


@pytest.mark.parametrize("mode", ["-n0", "-n1"])
def test_a_hook_that_ends_the_process_of_the_test_does_not_end_the_run(
    suite: MakeSuite, mode: str
) -> None:
    tests = "def test_dies(): pass\ndef test_hangs(): pass\ndef test_passes(): pass"
    made = suite(conftest=DEADLY, test_it=tests)
    run = made.run("--fkit", mode, "--fkit-timeout=2")
    assert "INTERNALERROR" not in run.text
    assert "2 errors" in run.text
    assert "1 passed" in run.text
    assert "replacing crashed worker" not in run.text
    assert "the process died in pytest_runtest_makereport, which is not called" in run.text
