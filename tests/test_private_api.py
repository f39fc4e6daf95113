"""One test per private name in compat/: says first which one a new version changed."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import json
import os
import pdb
import re
import threading
import types
from pathlib import Path
from typing import Any, Iterator, cast

import _pytest._code.code
import _pytest._io
import _pytest.capture
import _pytest.debugging
import _pytest.junitxml
import _pytest.skipping
import _pytest.warnings
import execnet
import execnet.gateway_base
import pytest
import xdist.remote
import xdist.scheduler
from _pytest.config import create_terminal_writer
from xdist.dsession import DSession
from xdist.workermanage import NodeManager, WorkerController

from pytest_fkit.compat import (
    pytest_fixtures,
    pytest_hooks,
    pytest_junit,
    pytest_nodes,
    pytest_output,
    pytest_reports,
    pytest_session,
    xdist_controller,
    xdist_worker,
)


def _source(thing: Any) -> str:
    return inspect.getsource(thing)


@pytest.fixture
def items(pytester: pytest.Pytester) -> list[Any]:
    return pytester.getitems(
        """
        import pytest
        @pytest.fixture(scope="module")
        def wide(): return 1
        @pytest.fixture
        def narrow(wide): return 2
        @pytest.fixture(scope="class")
        def of_class(): return 4
        @pytest.mark.parametrize("number", [3], scope="module")
        def test_one(narrow, number, of_class): pass
        """
    )


def test_config_inicfg_has_values_as_they_are_in_the_file(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nfkit_timeout = 5\nfkit_env =\n    A=1\n    B=2")
    config = pytester.parseconfig("-o", "fkit_grace=7")
    assert pytest_session.ini_value(config, "fkit_timeout") == "5"
    assert pytest_session.ini_value(config, "fkit_grace") == "7"
    assert pytest_session.ini_value(config, "fkit_env") == ["A=1", "B=2"]
    assert pytest_session.ini_value(config, "fkit_isolation") in ("", None)
    with pytest.raises(ValueError, match="nobody_knows_it"):
        pytest_session.ini_value(config, "nobody_knows_it")
    if pytest.version_tuple < (9,):
        return
    pytester.path.joinpath("tox.ini").unlink()
    pytester.path.joinpath("pytest.toml").write_text("[pytest]\nfkit_timeout = 5\nfkit_top = [1]")
    config = pytester.parseconfig("-o", "fkit_top=7")
    assert pytest_session.ini_value(config, "fkit_timeout") == 5
    assert pytest_session.ini_value(config, "fkit_top") == "7"


def test_hook_caller_remove_plugin(pytester: pytest.Pytester) -> None:
    class Plugin:
        def pytest_runtest_logstart(self) -> None: ...

    config = pytester.parseconfigure()
    plugin, kept = Plugin(), Plugin()
    config.pluginmanager.register(plugin)
    config.pluginmanager.register(kept)
    pytest_hooks.silence_hook(config, "pytest_runtest_logstart", [kept])
    left = [each.plugin for each in config.hook.pytest_runtest_logstart.get_hookimpls()]
    assert left == [kept]


def test_setup_state_stack_and_teardown_exact(items: list[Any]) -> None:
    session = items[0].session
    ended = []
    pytest_fixtures.set_up_collectors(items[0])
    node = items[0].parent
    finalizers, _ = session._setupstate.stack[node]
    finalizers.append(lambda: ended.append("module"))
    assert pytest_fixtures.needs_tear_down(session, None)
    assert not pytest_fixtures.needs_tear_down(session, items[0])
    assert pytest_fixtures.shares_setup(session, items[0])
    pytest_fixtures.tear_down(session, None)
    assert ended == ["module"]
    assert not session._setupstate.stack


@pytest.mark.parametrize("how", ["skip", "xfail"])
def test_several_exceptions_of_one_teardown(pytester: pytest.Pytester, how: str) -> None:
    source = f"""
        import pytest
        @pytest.fixture(scope="module")
        def wide():
            yield
            pytest.{how}("second")
        class TestIt:
            def teardown_method(self): pytest.{how}("first")
            def test_it(self, wide): pass
    """
    found = pytester.inline_run(pytester.makepyfile(source), "-p", "no:fkit")
    (report,) = (each for each in found.getreports() if getattr(each, "when", "") == "teardown")
    skips = how == "skip" and pytest_fixtures.skips_by_groups()
    assert report.failed is (pytest_fixtures.groups_errors_of_teardown() and not skips)


def test_setup_state_finalizers_can_be_forgotten(items: list[Any]) -> None:
    session = items[0].session
    pytest_fixtures.set_up_collectors(items[0])
    finalizers, _ = session._setupstate.stack[items[0].parent]
    finalizers.append(lambda: pytest.fail("was not forgotten"))
    nodes: dict[Any, object] = {}
    pytest_fixtures.leave_finalizers(session, [], None, nodes)
    assert list(nodes) == list(session._setupstate.stack)
    pytest_fixtures.tear_down(session, None)


def test_an_item_is_set_up_in_two_parts(pytester: pytest.Pytester) -> None:
    items = pytester.getitems(
        """
        import unittest, pytest
        @pytest.fixture(scope="module")
        def wide(): return 1
        @pytest.fixture
        def narrow(wide): return 2
        def test_one(narrow, wide): pass
        class TestTwo(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def asks(self, wide): pass
            def test_two(self): pass
        """
    )
    for each in items:
        item: Any = each
        order: list[Any] = []

        def fill(fill_all: Any, item: Any = item, order: list[Any] = order) -> None:
            order += pytest_fixtures.first_wide_fixtures(item)
            for name in pytest_fixtures.first_wide_fixtures(item):
                pytest_fixtures.fill_in(item, name)
            order.append(dict(item.funcargs))
            pytest_fixtures.keep_filling(item)
            fill_all()

        assert pytest_fixtures.fills_in_setup(item)
        pytest_fixtures.replace_filling(item, fill)
        session: Any = item.session
        session._setupstate.setup(item)
        assert order[0] == "wide"
        assert order[-1]["wide"] == 1
        assert order[-1].keys() == set(order[:-1])
        assert "narrow" not in item.fixturenames or item.funcargs["narrow"] == 2
        finalizers, _ = session._setupstate.stack[item]
        finalizers.append(lambda order=order: order.append("ended"))
        pytest_fixtures.leave_finalizers(session, [], item, {})
        pytest_fixtures.tear_down(session, None)
        assert order[-1] == "ended"
        item._initrequest()
        session._setupstate.setup(item)
        pytest_fixtures.take_off_stack(session, item)
        assert item not in session._setupstate.stack
        pytest_fixtures.tear_down(session, None)


def test_hooks_of_others_around_a_setup(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest
        done = []
        @pytest.hookimpl(hookwrapper=True)
        def pytest_runtest_protocol(): yield
        def pytest_runtest_setup(item): pass
        def pytest_runtest_teardown(nextitem, item): done.append((item, nextitem))
        """
    )
    (item,) = pytester.getitems("def test_it(): pass")
    (wrapper,) = pytest_hooks.wrappers_of_others(item)
    assert wrapper.hookwrapper
    given = []

    def replaced(*arguments: Any, function: Any = wrapper.function) -> Any:
        given.append(arguments)
        return function(*arguments)

    wrapper.function = replaced
    item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
    assert given == [()]
    (undo,) = pytest_hooks.teardowns_of_others(item, None)
    undo.call()
    assert not undo.wraps
    conftest: Any = wrapper.plugin
    assert conftest.done[-1] == (item, None)
    call: Any = pytest.CallInfo.from_call(lambda: 1 / 0, when="teardown")
    report = pytest_hooks.report_for_installed(item, call)
    assert report.failed
    assert pytest_reports.interacts(call, report)


def test_the_logging_plugin_tears_down_what_it_did_not_set_up(items: list[Any]) -> None:
    item = items[0]
    manager = item.config.pluginmanager
    others = [
        each for name, each in manager.list_name_plugin() if each and name != "logging-plugin"
    ]
    tear_down = manager.subset_hook_caller("pytest_runtest_teardown", others)
    with pytest.raises(KeyError):
        tear_down(item=item, nextitem=None)
    pytest_fixtures.expect_log_records(item)
    tear_down(item=item, nextitem=None)


def test_the_current_test_is_named(items: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    pytest_nodes.set_current_test(items[0], None)
    pytest_nodes.set_current_test(items[0], "setup")
    assert os.environ["PYTEST_CURRENT_TEST"] == f"{items[0].nodeid} (setup)"
    pytest_nodes.set_current_test(items[0], None)
    assert "PYTEST_CURRENT_TEST" not in os.environ


def test_a_wide_fixture_with_another_parameter_is_missing(pytester: pytest.Pytester) -> None:
    items = pytester.getitems(
        """
        import pytest
        @pytest.fixture(scope="module", params=["a", "b"])
        def wide(request): return 1
        def test_one(wide): pass
        """
    )
    pytest_fixtures.set_up_collectors(items[0])
    pytest_fixtures.request_fixtures(items[0], ["wide"])
    assert pytest_fixtures.missing_fixture(items[0]) is None
    assert pytest_fixtures.missing_fixture(items[1]) == "wide"


def test_plugins_that_start_threads_for_limits_are_known(pytester: pytest.Pytester) -> None:
    (item,) = pytester.getitems("def test_it(): pass")
    assert not pytest_nodes.starts_threads(item)
    pytester.makeini("[pytest]\nfaulthandler_timeout = 5")
    (item,) = pytester.getitems("def test_it(): pass")
    assert pytest_nodes.starts_threads(item)


def test_request_by_an_item_that_is_not_set_up(items: list[Any]) -> None:
    [item] = items
    assert pytest_fixtures.takes_requests(item)
    pytest_fixtures.set_up_collectors(item)
    pytest_fixtures.request_fixtures(item, ["wide"])
    definition = item._fixtureinfo.name2fixturedefs["wide"][-1]
    assert definition.cached_result[0] == 1
    assert definition._finalizers is not None
    pytest_fixtures.tear_down(item.session, None)
    assert definition.cached_result is None
    pytest_fixtures.forget_request(item)
    assert item._request is False
    assert callable(item._initrequest)


def test_what_a_fixture_raised_when_it_was_torn_down_for_another_parameter(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import pytest
        @pytest.fixture(scope="module", params=[1, 2, 3])
        def wide(request):
            assert request.param != 3, "set up wrongly"
            yield
            assert request.param != 1, "torn down wrongly"
        def test_it(wide): pass
        """
    )
    found = {
        str(call.excinfo.value).partition("\n")[0]: pytest_fixtures.raised_in_teardown_of_fixture(
            call.excinfo.value
        )
        for hooked in pytester.inline_run("-pno:fkit", "-pno:xdist").getcalls(
            "pytest_runtest_makereport"
        )
        for call in [hooked.call]
        if call.excinfo is not None
    }
    assert found == {"torn down wrongly": True, "set up wrongly": False}


def test_scope_of_fixtures_and_of_parametrize(items: list[Any]) -> None:
    assert sorted(pytest_fixtures.wide_fixtures(items[0])) == ["number", "wide"]
    assert items[0].callspec._arg2scope["number"].value == "module"


def test_which_wide_fixtures_one_is_set_up_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        @pytest.fixture(scope="session")
        def number(): return 1
        @pytest.fixture(scope="class")
        def of_test(number): pass
        @pytest.fixture(scope="module")
        def inner(request): return request.getfixturevalue("number")
        @pytest.fixture(scope="module")
        def outer(inner): pass
        def test_one(of_test): pass
        def test_two(outer): pass
        """
    )
    calls = pytester.inline_run("-pno:fkit", "-pno:xdist", "-k", "test_two").getcalls(
        "pytest_fixture_setup"
    )
    requests = {call.fixturedef.argname: call.request for call in calls}
    assert pytest_fixtures.wide_dependents(requests["number"]) == ["inner", "outer"]
    assert pytest_fixtures.wide_dependents(requests["outer"]) == []
    (call, _) = pytester.inline_run("-pno:fkit", "-pno:xdist", "-k", "test_one").getcalls(
        "pytest_fixture_setup"
    )
    assert pytest_fixtures.wide_dependents(call.request) == []


def test_which_fixture_is_missing(items: list[Any]) -> None:
    [item] = items
    missing = pytest_fixtures.missing_fixture(item)
    assert missing in ("number", "wide")
    pytest_fixtures.set_up_collectors(item)
    pytest_fixtures.request_fixtures(item, ["number", "wide"])
    assert pytest_fixtures.missing_fixture(item) is None
    pytest_fixtures.tear_down(item.session, None)
    assert pytest_fixtures.missing_fixture(item) == missing


def test_report_sections_of_an_item(items: list[Any]) -> None:
    assert items[0]._report_sections == []


def test_what_was_raised_in_a_collection(pytester: pytest.Pytester) -> None:
    module = pytester.getmodulecol("raise RuntimeError('no')")
    report = module.ihook.pytest_make_collect_report(collector=module)
    assert str(pytest_session.collection_error(report)) == "no"


REPORTED = """
    import os, pathlib, unittest
    import pytest

    def nested(number):
        local = {"one": number}
        if number:
            nested(number - 1)
        raise ValueError("the end\\nof it")

    @pytest.fixture
    def broken():
        raise OSError("in a fixture")

    @pytest.fixture
    def late():
        yield
        assert [1, 2] == [1, 3]

    def test_passes(record_property): record_property("name", ("value", 1))
    def test_fails(tmp_path): nested(2)
    def test_chained():
        try:
            nested(0)
        except ValueError as error:
            raise KeyError("caused") from error
    def test_during():
        try:
            nested(0)
        except ValueError:
            raise KeyError("meanwhile")
    def test_group():
        group = globals()["__builtins__"].get("ExceptionGroup")
        raise group("several", [ValueError(1), KeyError(2)]) if group else ValueError(3)
    def test_skips(): pytest.skip("why")
    @pytest.mark.skip(reason="marked")
    def test_marked(): pass
    @pytest.mark.xfail(reason="expected")
    def test_xfails(): assert 0
    @pytest.mark.xfail(strict=True)
    def test_xpasses(): pass
    def test_without_traceback(): pytest.fail("told", pytrace=False)
    def test_setup(broken): pass
    def test_teardown(late): print("captured")
    def test_missing(there_is_none): pass
    class Old(unittest.TestCase):
        def test_old(self): self.assertEqual(1, 2)
        def test_old_skip(self): self.skipTest("old")
"""


@pytest.mark.parametrize(
    "options", [("-l",), ("--tb=short",), ("--tb=native",), ("--tb=line",), ("--full-trace",)]
)
def test_what_pytest_makes_of_reports(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    found: list[tuple[Any, Any]] = []

    class Both:
        def pytest_configure(self, config: pytest.Config) -> None:
            self.config = config

        def pytest_runtest_logreport(self, report: Any) -> None:
            report.path, report.result, report.extra = Path("a/b"), object(), {"one": (1, "two")}
            ours = pytest_reports._report_data(report)
            assert pytest_reports.report_to_data(self.config, report) == ours
            hook = self.config.hook.pytest_report_to_serializable
            found.append((ours, hook(config=self.config, report=report)))

    pytester.makepyfile(REPORTED)
    pytester.inline_run(*options, plugins=[Both()])
    assert len(found) > 30
    for ours, theirs in found:
        # attrs, before pytest 7.3, makes lists of tuples.
        assert json.loads(json.dumps(ours)) == json.loads(json.dumps(theirs))
        assert type(ours["sections"]) is type(theirs["sections"])


def test_what_reports_are_made_of() -> None:
    for kind, names in pytest_reports._PARTS.items():
        fields = getattr(kind, "__dataclass_fields__", None)
        if fields is not None:
            assert names == tuple(field.name for field in dataclasses.fields(kind))


def test_reports_with_parts_of_others_are_left_to_the_hook(pytester: pytest.Pytester) -> None:
    class Entry(_pytest._code.code.ReprEntryNative):
        pass

    class Foreign(pytest.TestReport):
        pass

    traceback = _pytest._code.code.ReprTraceback([Entry(["line"])], None, "native")
    longrepr = _pytest._code.code.ReprExceptionInfo(reprtraceback=traceback, reprcrash=None)
    config = pytester.parseconfigure()
    arguments: Any = ("a.py::test", ("a.py", 0, "test"), {}, "failed", longrepr, "call")
    for report in (pytest.TestReport(*arguments), Foreign(*arguments)):
        theirs = config.hook.pytest_report_to_serializable(config=config, report=report)
        assert pytest_reports.report_to_data(config, report) == theirs
        assert theirs["$report_type"] == type(report).__name__


def test_a_plugins_own_way_with_reports_is_used(pytester: pytest.Pytester) -> None:
    class Plugin:
        @pytest.hookimpl(tryfirst=True)
        def pytest_report_to_serializable(self) -> dict[str, Any]:
            return {"own": 1}

    config = pytester.parseconfigure()
    report: Any = pytest.TestReport("a.py::t", ("a.py", 0, "t"), {}, "passed", None, "call")
    assert pytest_reports.report_to_data(config, report)["nodeid"] == "a.py::t"
    config.pluginmanager.register(Plugin())
    assert pytest_reports.report_to_data(config, report) == {"own": 1}


def test_global_capture(request: pytest.FixtureRequest) -> None:
    manager = request.config.pluginmanager.getplugin("capturemanager")
    capturing = manager._global_capturing
    for capture in (capturing.out, capturing.err):
        assert hasattr(capture, "targetfd") == (request.config.getoption("capture") == "fd")
        assert hasattr(capture, "tmpfile")
    outside = pytest_output.uncaptured_stderr(request.config)
    assert outside() is None
    if request.config.getoption("capture") == "fd":
        with manager.global_and_fixture_disabled():
            assert outside() == capturing.err.targetfd_save


def test_what_was_captured_is_read_at_once() -> None:
    source = _source(_pytest.capture.FDCapture.snap)
    assert "res = self.tmpfile.read()" in source
    assert "self.tmpfile.truncate()" in source


def test_reading_is_replaced(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os
        from pytest_fkit.compat import pytest_output

        def test_it(request):
            pytest_output.replace_reading(request.config, lambda descriptor: None)
            os.write(1, b"as it is")
            manager = request.config.pluginmanager.getplugin("capturemanager")
            assert manager.read_global_capture()[0] == "as it is"
            pytest_output.replace_reading(request.config, lambda descriptor: f"{descriptor}")
            os.write(1, b"gone")
            number = manager._global_capturing.out.tmpfile.fileno()
            assert manager.read_global_capture()[0] == str(number)
            assert os.fstat(number).st_size == 0
        """
    )
    pytester.runpytest_subprocess("-p", "no:fkit").assert_outcomes(passed=1)


def test_fixture_captures(capsys: pytest.CaptureFixture[str]) -> None:
    assert [number for _, number in pytest_output.fixture_captures(capsys)] == [1, 2]
    assert pytest_output.fixture_capture_descriptors(capsys) is None


def test_fixture_capture_descriptors(capfd: pytest.CaptureFixture[str]) -> None:
    assert pytest_output.fixture_captures(capfd) == []
    assert pytest_output.fixture_capture_descriptors(capfd) is not None


def test_evaluate_xfail_marks(pytester: pytest.Pytester) -> None:
    item = pytester.getitem(
        "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_it(): pass", "test_it"
    )
    found = _pytest.skipping.evaluate_xfail_marks(item)
    assert found is not None
    assert (found.reason, found.raises) == ("known", None)
    assert pytest_reports.expected_failure(item) == "known"
    assert pytest_reports.has_xfail(item)
    pytest_reports.evaluate_xfail(item)
    assert item.stash[_pytest.skipping.xfailed_key] == found


@pytest.mark.parametrize("mark", ["skip", "xfail('1 +', reason='')"])
def test_no_xfail_of_what_is_skipped_or_wrong(pytester: pytest.Pytester, mark: str) -> None:
    source = f"import pytest\n@pytest.mark.{mark}\ndef test_it(): pass"
    item = pytester.getitem(source, "test_it")
    assert not pytest_reports.has_xfail(item)
    pytest_reports.evaluate_xfail(item)
    assert item.stash.get(_pytest.skipping.xfailed_key, None) is None


def test_debugger_goes_through_init_pdb(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in (
        (pdb, "set_trace"),
        (pytest, "set_trace"),
        (_pytest.debugging.pytestPDB, "set_trace"),
        (_pytest.debugging.pytestPDB, "_init_pdb"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # to be restored
    by_name = pytest.set_trace
    calls = []
    pytest_session.replace_debugger(lambda *args, **kwargs: calls.append(1))
    pytest.set_trace()
    pdb.set_trace()
    assert len(calls) == 2
    assert "_init_pdb" in _source(by_name)


def test_base_temporary_directory(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfigure()
    pytest_session.resolve_basetemp(config)
    assert config._tmp_path_factory.getbasetemp().is_dir()  # type: ignore[attr-defined]


def test_the_terminal_reporters_writer(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfigure()
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    texts: list[str] = []
    file = reporter._tw._file
    file.reconfigure(line_buffering=False, write_through=False)
    assert pytest_output.redirect_terminal(config, texts.append)
    silent = config.pluginmanager.getplugin("terminalreporter")
    assert silent is not reporter
    assert not config.pluginmanager.is_registered(reporter)
    config.get_terminal_writer().write("by the writer")
    reporter.write("by the reporter")  # who holds the old one, as live logs do
    assert "".join(texts) == "by the writerby the reporter"
    assert "file" in inspect.signature(create_terminal_writer).parameters
    pytest_output.begin_terminal_line(reporter)
    assert texts[-1] == "\n"
    assert reporter._tw.width_of_current_line == 0


def test_a_terminal_writer_highlights_source_lines() -> None:
    writer: Any = _pytest._io.TerminalWriter(file := io.StringIO())
    pytest_reports.write_source(writer, ["def f():", "    1"], [">   ", "    "])
    assert file.getvalue() == ">   def f():\n        1\n"
    writer.hasmarkup = True
    pytest_reports.write_source(writer, ["def f():"], [">   "])
    assert re.search(">   \x1b.*def.*\x1b.*f", file.getvalue())


def test_a_report_is_text_as_on_a_terminal() -> None:
    class Shown:
        def toterminal(self, terminal: Any) -> None:
            terminal.line("    def f():")
            terminal.line("E       AssertionError")

    assert pytest_reports.shown_text(Shown()) == "    def f():\nE       AssertionError"
    assert pytest_reports.shown_text("  died") == "  died"


def test_junit_node_reporters(pytester: pytest.Pytester, tmp_path: Path) -> None:
    config = pytester.parseconfigure(f"--junitxml={tmp_path / 'junit.xml'}")
    log = pytest_junit.junit_log(config)
    assert isinstance(log, _pytest.junitxml.LogXML)
    report: Any = pytest.TestReport("a.py::b", ("a.py", 0, "b"), {}, "failed", "text", "call")
    pytest_junit.junit_errors_for_deaths(log, lambda _: ("the message", "the text"))
    log.node_reporter(report).append_failure(report)
    element = log.node_reporter(report).to_xml()
    assert [(child.tag, child.get("message")) for child in element] == [("error", "the message")]


def test_junit_fixtures_ask_for_the_log_in_the_stash(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfigure("--junitxml=junit.xml")
    recorded: list[tuple[str, str, object]] = []
    pytest_junit.watch_junit_fixtures(config, lambda *record: recorded.append(record))
    log: Any = config.stash[_pytest.junitxml.xml_key]
    log.add_global_property("name", 1)
    log.node_reporter("a.py::b").add_attribute("extra", "yes")
    with pytest.raises(TypeError, match="needs to be a string, but int given"):
        log.add_global_property(1, 1)
    assert recorded == [("property", "name", 1), ("attribute", "extra", "yes")]
    source = _source(_pytest.junitxml)
    assert "xml.add_global_property" in source
    assert "node_reporter.add_attribute" in source


def test_node_ids_can_be_given(items: list[Any]) -> None:
    [item] = items
    item._nodeid = nodeid = f"{item.nodeid}@group"
    xdist_worker.apply_xdist_groups([item])
    assert item.nodeid == nodeid
    assert (
        pytest.TestReport(item.nodeid, item.location, {}, "passed", None, "call").nodeid == nodeid
    )


def test_junit_properties(pytester: pytest.Pytester, tmp_path: Path) -> None:
    config = pytester.parseconfigure(f"--junitxml={tmp_path / 'junit.xml'}")
    log: Any = pytest_junit.junit_log(config)
    said = {"worker": "gw0"}
    pytest_junit.junit_properties(log, lambda _: said)
    location = ("a.py", 0, "b")
    for when in ("setup", "call", "teardown"):
        said["when"] = when
        report: Any = pytest.TestReport("a.py::b", location, {}, "passed", None, when)
        log.pytest_runtest_logreport(report)
    (case,) = (each.to_xml() for each in log.node_reporters_ordered)
    found = {each.get("name"): each.get("value") for each in case.iter("property")}
    assert found == {"worker": "gw0", "when": "teardown"}


def test_when_all_workers_have_collected() -> None:
    assert "self.sched.collection_is_completed" in _source(DSession.worker_collectionfinish)


def test_a_worker_is_known_before_its_configuration(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        from pytest_fkit.compat import xdist_worker
        early = xdist_worker.runs_in_worker()
        def pytest_unconfigure(config):
            assert early == hasattr(config, "workerinput")
        """
    )
    pytester.makepyfile("import conftest\ndef test_in_worker(): assert conftest.early")
    run = pytester.runpytest_subprocess("-n1", "-pno:fkit")
    run.assert_outcomes(passed=1)
    assert run.ret == 0


def test_worker_interactor_and_its_connection() -> None:
    source = (Path(inspect.getfile(DSession)).parent / "remote.py").read_text(encoding="utf-8")
    assert "class WorkerInteractor" in source
    assert "self.channel = channel" in source
    assert "self.workerid = " in source
    assert "self.testrunuid = " in source
    connection = _source(execnet.gateway_base.Popen2IO)
    assert "self.infile" in connection
    assert "self.outfile" in connection


class _Channel:
    """The worker's end of xdist's channel, as far as WorkerInteractor asks for it."""

    def __init__(self) -> None:
        execmodel: Any = execnet.gateway_base.get_execmodel("thread")
        self.gateway = types.SimpleNamespace(execmodel=execmodel)
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def setcallback(self, callback: Any, endmarker: object) -> None:
        self.command, self.endmarker = callback, endmarker

    def send(self, event: tuple[str, dict[str, Any]]) -> None:
        self.sent.append(event)


@pytest.fixture
def channel() -> _Channel:
    return _Channel()


@pytest.fixture
def assigned(pytester: pytest.Pytester, channel: _Channel) -> xdist_worker.AssignedTests:
    config: Any = pytester.parseconfigure()
    config.workerinput = {"workerid": "gw0", "testrunuid": "1"}
    interactor = xdist.remote.WorkerInteractor(config, channel)
    assert xdist_worker.worker_facts(interactor) == {"worker_id": "gw0", "testrun_uid": "1"}
    return xdist_worker.AssignedTests(interactor)


def test_tests_that_xdist_assigns_are_taken_with_the_one_that_follows(
    channel: _Channel, assigned: xdist_worker.AssignedTests
) -> None:
    threading.Timer(0.05, lambda: channel.command(("runtests", {"indices": range(5)}))).start()
    assigned.begin()
    assert assigned.take(1) == ([0], 1)
    assert assigned.take(3) == ([1, 2, 3], 4)
    channel.command(("shutdown", {}))
    assert assigned.take(3) == ([4], None)
    assert assigned.take(3) == ([], None)


def test_tests_that_xdist_steals_are_not_waited_for(
    channel: _Channel, assigned: xdist_worker.AssignedTests
) -> None:
    threading.Timer(0.05, lambda: channel.command(("runtests", {"indices": range(5)}))).start()
    assigned.begin()
    assert assigned.take(1) == ([0], 1)
    channel.command(("steal", {"indices": [3, 4]}))
    assert channel.sent[-1] == ("unscheduled", {"indices": [3, 4]})
    # Number 1 is what this worker can begin, number 2 what follows it.
    assert assigned.take(9) == ([1], 2)
    channel.command(channel.endmarker)
    assert assigned.take(9) == ([2], None)


def test_who_hears_reports_is_known(pytester: pytest.Pytester) -> None:
    class Plugin:
        def pytest_runtest_logreport(self) -> None: ...

    config = pytester.parseconfigure()
    assert len(config.hook.pytest_runtest_logreport.get_hookimpls()) > 1
    assert not pytest_hooks.others_hear_reports(config)
    config.pluginmanager.register(Plugin())
    assert pytest_hooks.others_hear_reports(config)


def test_dsession_handles_events_by_these_methods() -> None:
    for name, *parameters in (
        ("worker_logstart", "node", "nodeid", "location"),
        ("worker_testreport", "node", "rep"),
        ("worker_logfinish", "node", "nodeid", "location"),
        ("worker_runtest_protocol_complete", "node", "item_index", "duration"),
    ):
        assert list(inspect.signature(getattr(DSession, name)).parameters)[1:] == parameters


def test_dsession_counts_failed_nodes_and_calls_by_name() -> None:
    assert "self._failed_nodes_count += 1" in _source(DSession.worker_errordown)
    errordown = _source(DSession.worker_errordown)
    assert errordown.index("pytest_testnodedown") < errordown.index("_failed_nodes_count += 1")
    loop = _source(DSession.loop_once)
    assert "self.queue.get(" in loop
    assert 'method = "worker_" + callname' in loop


def test_dsession_takes_what_the_last_worker_collected_before_its_scheduler_hears() -> None:
    finish = _source(DSession.worker_collectionfinish)
    told = finish.index("self.sched.add_node_collection(")
    assert finish.index("self._session.testscollected = len(ids)") < told


def test_a_reason_to_stop_interrupts_dsessions_loop(session: DSession) -> None:
    xdist_controller.stop_run(session.config, "enough")
    assert session.shouldstop == "enough"
    assert "if self.shouldstop:" in _source(DSession.pytest_runtestloop)


def test_a_method_that_runs_again_gets_another_instance(pytester: pytest.Pytester) -> None:
    [item] = pytester.getitems("class TestA:\n    def test_b(self): pass\n")
    assert isinstance(item, pytest.Function)
    first = item.obj.__self__
    assert item.obj.__self__ is first
    pytest_nodes.forget_instance(item)
    assert item.obj.__self__ is not first


def test_dsession_says_why_it_gave_up_and_counts_failures(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfigure("--tx=popen", "--dist=load")
    session = xdist_controller.dist_session(config)
    assert xdist_controller.xdist_gave_up(config) == ""
    session._summary_report = "enough"
    assert xdist_controller.xdist_gave_up(config) == "enough"
    assert "self._summary_report = msg" in _source(DSession.worker_errordown)
    session.maxfail, session.shouldstop = 1, False
    report: Any = pytest.TestReport("a.py::b", ("a.py", 0, "b"), {}, "failed", "text", "call")
    xdist_controller.count_crash(config, report)
    assert session.shouldstop == "stopping after 1 failures"
    assert 'when="???"' in _source(DSession.handle_crashitem)


@pytest.fixture
def session(pytester: pytest.Pytester) -> Iterator[DSession]:
    config = pytester.parseconfigure("--tx=2*popen", "--dist=load")
    assert isinstance(xdist_controller.dist_session(config), DSession)
    yield xdist_controller.dist_session(config)
    config._ensure_unconfigure()


def test_who_is_called_when_a_worker_dies_can_be_replaced(session: DSession) -> None:
    deaths: list[tuple[object, object]] = []
    xdist_controller.on_worker_death(
        session.config, lambda node, error: deaths.append((node, error))
    )
    session.queue.put(("errordown", {"node": "gw0", "error": "gone"}))
    session._active_nodes.add("gw0")
    session.sched = types.SimpleNamespace(tests_finished=False)
    session.loop_once()
    assert deaths == [("gw0", "gone")]


def test_what_takes_the_place_of_errordown_uses_what_that_uses(session: DSession) -> None:
    source = _source(DSession.worker_errordown)
    for name in (
        "hook.pytest_testnodedown(node=node, error=error)",
        "self.sched.remove_node(node)",
        "self.handle_crashitem(crashitem, node)",
        "self._summary_report = msg",
        "self._clone_node(node)",
        "self._active_nodes.remove(node)",
    ):
        assert name in source
    xdist_controller.give_up_restarts(session.config, "too many")
    assert xdist_controller.xdist_gave_up(session.config) == "too many"
    assert xdist_controller.active_nodes(session.config) is session._active_nodes


@pytest.mark.parametrize(("options", "limit"), [([], None), (["--max-worker-restart=3"], 3)])
def test_the_limit_of_restarts_is_known(
    pytester: pytest.Pytester, options: list[str], limit: int | None
) -> None:
    config = pytester.parseconfig("-n2", *options)
    assert xdist_controller.restart_limit(config) == limit


def test_different_collections_are_reported_as_xdist_does(session: DSession) -> None:
    heard: list[pytest.CollectReport] = []

    class Plugin:
        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            heard.append(report)

    session.config.pluginmanager.register(Plugin())
    first, second = (
        types.SimpleNamespace(gateway=types.SimpleNamespace(id=name)) for name in ("gw0", "gw1")
    )
    assert xdist_controller.same_collections(
        session.config, {_Hashable(first): ["a"], _Hashable(second): ["a"]}
    )
    different = {_Hashable(first): ["a"], _Hashable(second): ["b"]}
    assert not xdist_controller.same_collections(session.config, different)
    [report] = heard
    assert report.nodeid == "gw1"
    assert "Different tests were collected between gw0 and gw1" in str(report.longrepr)


class _Hashable:
    def __init__(self, node: types.SimpleNamespace) -> None:
        self.gateway = node.gateway


def test_the_end_of_tests_is_heard(pytester: pytest.Pytester, channel: _Channel) -> None:
    config: Any = pytester.parseconfigure()
    config.workerinput = {"workerid": "gw0", "testrunuid": "1"}
    interactor = xdist.remote.WorkerInteractor(config, channel)
    ends: list[str] = []
    xdist_worker.on_end_of_tests(interactor, lambda: ends.append("end"))
    channel.command(("runtests", {"indices": [1]}))
    assert ends == []
    channel.command(("shutdown", {}))
    channel.command(channel.endmarker)
    assert ends == ["end", "end"]


def test_reports_are_heard_where_xdist_would_send_them(
    pytester: pytest.Pytester, channel: _Channel
) -> None:
    heard: list[object] = []

    class Before:
        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_logreport(self, report: object) -> None:
            heard.append(("before", report))

    class After:
        def pytest_runtest_logreport(self, report: object) -> None:
            heard.append(("after", report))

    config: Any = pytester.parseconfigure("-p", "no:terminal")
    config.workerinput = {"workerid": "gw0", "testrunuid": "1"}
    config.pluginmanager.register(After())
    interactor = xdist.remote.WorkerInteractor(config, channel)
    config.pluginmanager.register(Before())
    xdist_worker.take_reports_of_interactor(config, interactor, heard.append)
    report = pytest.TestReport("a.py::b", ("a.py", 0, "b"), {}, "passed", None, "call")
    config.hook.pytest_runtest_logreport(report=report)
    config.hook.pytest_runtest_logstart(nodeid="a.py::b", location=("a.py", 0, "b"))
    config.hook.pytest_runtest_logfinish(nodeid="a.py::b", location=("a.py", 0, "b"))
    assert heard == [("before", report), report, ("after", report)]
    assert channel.sent == []


def test_a_gateway_is_ended_whoever_has_the_process() -> None:
    group = execnet.Group()
    gateway = group.makegateway("popen")
    channel = gateway.remote_exec("channel.receive()")
    xdist_controller.end_gateway(gateway)
    with pytest.raises(EOFError):
        channel.waitclose(10)
    group.terminate(10)


def test_who_opens_gateways_can_be_replaced(session: DSession) -> None:
    assert "self.nodemanager = NodeManager(" in _source(DSession.pytest_sessionstart)
    setup = _source(NodeManager.setup_node)
    assert "self.group.makegateway(spec)" in setup
    assert setup.index("makegateway") < setup.index("pytest_xdist_newgateway")
    # xdist gives them other objects if they lack this; what is known of them is by object.
    assert 'getattr(spec, "execmodel", None) != "main_thread_only"' in setup
    opened: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "nodemanager", NodeManager(session.config, ["popen"]), raising=False)
        before = xdist_controller.replace_makegateway(session.config, cast("Any", opened.append))
        assert before == session.nodemanager.group.__class__.makegateway.__get__(
            session.nodemanager.group
        )
        session.nodemanager.group.makegateway("popen")
        assert opened == ["popen"]
        [spec] = session.nodemanager.specs
        xdist_controller.new_id(session.config, spec)
        assert spec.id == "gw1"
        assert "spec.id = None" in _source(DSession._clone_node)
        assert "nodemanager.setup_node(spec, self.queue.put)" in _source(DSession._clone_node)
        assert "self._active_nodes.add(clone)" in _source(DSession._clone_node)


def test_what_execnet_knows_of_a_process_is_not_asked_for_again() -> None:
    group = execnet.Group()
    gateway = group.makegateway("popen")
    xdist_controller.know_process(gateway)
    xdist_controller.end_gateway(gateway)
    xdist_controller.know_process(gateway)
    group.terminate(10)


def test_a_worker_elsewhere_keeps_its_path() -> None:
    setup = _source(WorkerController.setup)
    hook, path = setup.index("pytest_configure_node("), setup.index("gateway.spec.popen else None")
    assert hook < path
    # Only where this says "popen" the arguments are those of the command line.
    assert setup.index("if not spec.popen or spec.chdir:") < hook
    node = types.SimpleNamespace(gateway=types.SimpleNamespace(spec=execnet.XSpec("popen")))
    xdist_controller.as_remote(cast("Any", node))
    assert not node.gateway.spec.popen


def test_a_scheduler_that_a_plugin_brings_is_seen(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfigure("--tx=2*popen", "--dist=load")
    assert not xdist_controller.other_schedulers(config)

    class Plugin:
        def pytest_xdist_make_scheduler(self) -> None: ...

    config.pluginmanager.register(Plugin())
    assert xdist_controller.other_schedulers(config)


def test_the_arguments_that_lead_to_a_file_are_known(pytester: pytest.Pytester) -> None:
    package = pytester.mkpydir("package")
    (package / "test_a.py").write_text("def test_a(): pass\n")
    (package / "test_b.py").write_text("def test_b(): pass\n")
    pytester.syspathinsert()
    given = ["package.test_a::test_a", "package/test_b.py", "package", "package/../package"]
    config = pytester.parseconfig("--pyargs", *given)
    found = pytest_session.arguments_leading_to(config, package / "test_a.py")
    assert found == ["package.test_a::test_a", "package", "package/../package"]
    config.args = ["nowhere.py"]
    assert not pytest_session.arguments_leading_to(config, package / "test_a.py")


class _Tells:
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["told"] = node.gateway.id, node.config.rootpath


def test_plugins_say_what_they_would_tell_a_worker(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfig()
    assert not xdist_worker.configures_nodes(config)
    config.pluginmanager.register(_Tells())
    assert xdist_worker.configures_nodes(config)
    xdist_worker.configure_node(config)
    given = xdist_worker.worker_input(config)
    assert given["told"] == ("master", config.rootpath)
    assert given["workerid"] == "master"


def test_a_plugins_own_way_to_run_a_test_can_be_taken_out(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfig()
    forked = types.ModuleType("pytest_forked")
    forked.pytest_runtest_protocol = lambda item: True  # type: ignore[attr-defined]
    config.pluginmanager.register(forked)
    before = config.hook.pytest_runtest_protocol.get_hookimpls()
    pytest_hooks.silence_pytest_forked(config)
    after = config.hook.pytest_runtest_protocol.get_hookimpls()
    assert [each for each in before if each not in after] == [
        each for each in before if each.plugin is forked
    ]


def test_cleanups_can_be_forgotten_and_run(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfig()
    ran: list[int] = []
    config.add_cleanup(lambda: ran.append(0))
    dropped = pytest_session.forget_cleanups(config)
    assert not pytest_session.has_cleanups(config)
    config.add_cleanup(lambda: ran.append(1))
    config.add_cleanup(lambda: ran.append(2))
    assert pytest_session.has_cleanups(config)
    pytest_session.run_cleanups(config)
    assert not pytest_session.has_cleanups(config)
    pytest_session.run_cleanups(config)
    assert ran == [2, 1]
    if isinstance(dropped, contextlib.ExitStack):
        dropped.close()
    else:
        for cleanup in reversed(cast("Any", dropped)):  # pytest's own, of its capture
            cleanup()
    assert ran == [2, 1, 0]


def test_warnings_are_caught_by_these_arguments() -> None:
    names = inspect.signature(_pytest.warnings.catch_warnings_for_item).parameters
    assert {"config", "ihook", "when", "item"} <= {*names}


@pytest.mark.skipif(pytest.version_tuple < (8, 4), reason="pytest itself does not look")
def test_what_was_not_raised_is_raised_where_that_warning_is_an_error(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import sys, threading
        import pytest
        from pytest_fkit.compat import pytest_session

        def test_it(request):
            assert pytest_session.unraisable_errors_count(request.config)
            class Bad:
                def __del__(self): raise ValueError("in a destructor")
            Bad()
            with pytest.raises(pytest.PytestUnraisableExceptionWarning):
                pytest_session.raise_unraisable(request.config)
            thread = threading.Thread(target=lambda: 1 / 0)
            thread.start()
            thread.join()
            with pytest.raises(pytest.PytestUnhandledThreadExceptionWarning):
                pytest_session.raise_unraisable(request.config)
            pytest_session.raise_unraisable(request.config)
        """
    )
    pytester.runpytest_subprocess("-p", "no:fkit", "-W", "error").assert_outcomes(passed=1)


def test_plugins_by_what_they_hear(pytester: pytest.Pytester) -> None:
    class OfTests:
        def pytest_runtest_logstart(self) -> None: ...

    class Reporter(OfTests):
        def pytest_runtest_logreport(self) -> None: ...

    class Collects:
        told = 0

        def pytest_runtest_makereport(self) -> None: ...
        def pytest_sessionfinish(self) -> None:
            self.told += 1

    class Begins(Collects):
        def pytest_configure(self) -> None: ...

    class Counts(Collects):
        def pytest_runtest_logreport(self) -> None: ...

    item = pytester.getitem("def test_it(): pass", "test_it")
    config, plugins = item.config, item.config.pluginmanager
    for name in pytest_hooks.plugins_of_tests(config, begun=False):  # that are installed here
        plugins.unregister(name=name)
    of_tests, reporter, collects, begins = OfTests(), Reporter(), Collects(), Begins()
    for name, plugin in (("reporter", reporter), ("collects", collects), ("begins", begins)):
        plugins.register(plugin, name)
    assert not pytest_hooks.hears_in_tests(config)
    plugins.register(of_tests, "of tests")
    assert pytest_hooks.hears_in_tests(config)
    told = pytest_hooks.reporters_hook(item, "pytest_runtest_logstart").get_hookimpls()
    assert reporter in [each.plugin for each in told]
    assert of_tests not in [each.plugin for each in told]

    plugins.register(Counts(), "counts")
    # As in a test process; the worker goes on hearing.
    pytest_hooks.silence_hook(config, "pytest_runtest_logreport", keep=())
    assert pytest_hooks.plugins_of_tests(config, begun=True) == {"collects": collects}
    found = pytest_hooks.plugins_of_tests(config, begun=False)
    assert found == {"collects": collects, "begins": begins}
    pytest_hooks.finish_session(item.session, list(found.values()))
    assert (collects.told, begins.told) == (1, 1)
    pytest_hooks.forget_ends(config, list(found))
    assert pytest_hooks.plugins_of_tests(config, begun=False) == {}


def test_functions_of_reporters_are_replaced(pytester: pytest.Pytester) -> None:
    class Reporter:
        def pytest_runtest_logstart(self, nodeid: str) -> None:
            heard.append(nodeid)

        def pytest_runtest_logreport(self) -> None: ...

    heard: list[str] = []
    config = pytester.parseconfigure("-p", "no:terminal")
    config.pluginmanager.register(Reporter())
    pytest_hooks.wrap_reporters(
        config, "pytest_runtest_logstart", lambda function: lambda *given: function(f"<{given[0]}>")
    )
    config.hook.pytest_runtest_logstart(nodeid="name", location=("", 0, ""))
    assert heard == ["<name>"]


def test_whether_descriptors_are_captured_now(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from pytest_fkit.compat import pytest_output
        def test_it(request, capfd):
            assert pytest_output.captures_descriptors_now(request.config)
            with capfd.disabled():
                assert not pytest_output.captures_descriptors_now(request.config)
        """
    )
    pytester.runpytest_subprocess("-p", "no:fkit", "--capture=fd").assert_outcomes(passed=1)
