"""What pytest itself offers: plain and under fkit."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from comparing import MakeSuite

RESETS_STEPWISE = pytest.version_tuple >= (8, 4)


def test_doctest_items(suite: MakeSuite) -> None:
    product = '''
        def double(n):
            """
            >>> double(2)
            4
            >>> double(3)
            7
            """
            return 2 * n

        def half(n):
            """
            >>> half(4)
            2.0
            """
            return n / 2
    '''
    made = suite(product=product)
    (made.path / "test_text.txt").write_text(">>> 1 + 1\n2\n")
    plain = made.compare("--doctest-modules", "--doctest-glob=*.txt")
    assert plain.counts()["call passed"] == 2
    assert plain.counts()["call failed"] == 1


JSON_ITEMS = """
    import json, pytest

    def pytest_collect_file(parent, file_path):
        if file_path.suffix == ".json":
            return JsonFile.from_parent(parent, path=file_path)

    class JsonFile(pytest.File):
        def collect(self):
            for name, value in json.loads(self.path.read_text()).items():
                yield JsonItem.from_parent(self, name=name, value=value)

        def setup(self):
            with open("setups", "a") as file:
                file.write("x")

    class JsonItem(pytest.Item):
        def __init__(self, *, value, **kwargs):
            super().__init__(**kwargs)
            self.value = value

        def runtest(self):
            if self.value != "right":
                raise JsonError(self.name)

        def repr_failure(self, excinfo):
            return f"not right: {excinfo.value}"

        def reportinfo(self):
            return self.path, 0, f"json: {self.name}"

    class JsonError(Exception):
        pass
"""


def test_items_that_are_no_functions(suite: MakeSuite) -> None:
    made = suite(conftest=JSON_ITEMS)
    (made.path / "test_it.json").write_text('{"one": "right", "two": "wrong", "three": "right"}')
    plain = made.compare()
    assert plain.counts()["call passed"] == 2
    assert "not right: two" in plain.text


def test_testsuite_properties_without_workers(suite: MakeSuite) -> None:
    source = """
        import pytest

        @pytest.fixture(scope="session", autouse=True)
        def wide(record_testsuite_property):
            record_testsuite_property("wide", 1)

        def test_pass(record_testsuite_property, record_property, record_xml_attribute):
            record_testsuite_property("colour", "red")
            record_property("p", "v")
            record_xml_attribute("extra", "yes")

        def test_fail():
            assert 0
    """

    def properties(directory: Path) -> Any:
        root = ET.parse(directory / "junit.xml").getroot()
        return (
            sorted(
                (each.get("name"), each.get("value"))
                for each in root.iter("property")
                if not each.get("name", "").startswith("fkit_")
            ),
            [element.get("extra") for element in root.iter("testcase")][:2],
        )

    made = suite(test_it=source)
    plain = made.compare(
        "--junitxml=junit.xml", "-ojunit_family=xunit1", artefact=properties, modes=["n0"],
        crash=False,
    )  # fmt: skip
    assert plain.artefact[0] == [("colour", "red"), ("p", "v"), ("wide", "1")]


@pytest.mark.parametrize("policy", ["all", "failed", "none"])
def test_tmp_path_retention(suite: MakeSuite, policy: str) -> None:
    source = """
        import pytest

        def test_pass(tmp_path):
            (tmp_path / "file").write_text("x")

        def test_fail(tmp_path):
            (tmp_path / "file").write_text("x")
            assert 0

        @pytest.fixture(scope="module")
        def wide(tmp_path_factory):
            path = tmp_path_factory.mktemp("wide")
            (path / "file").write_text("x")
            return path

        def test_wide(wide):
            assert (wide / "file").exists()
    """

    def kept(directory: Path) -> list[str]:
        return sorted(
            path.parent.name for path in (directory / "base").rglob("file") if path.is_file()
        )

    made = suite(test_it=source)
    made.compare(
        "--basetemp=base", f"-otmp_path_retention_policy={policy}", artefact=kept, crash=False
    )


def test_caplog_recwarn_and_capture(suite: MakeSuite) -> None:
    source = """
        import logging, sys, warnings, pytest

        @pytest.fixture(scope="module")
        def wide():
            logging.getLogger("w").warning("from wide")
            yield

        def test_caplog(caplog, wide):
            caplog.set_level(logging.INFO)
            logging.info("hello %s", "you")
            assert [r.message for r in caplog.get_records("call")] == ["hello you"]

        def test_level_is_back():
            assert logging.getLogger().level == logging.WARNING

        def test_recwarn(recwarn):
            warnings.warn("one", UserWarning)
            assert len(recwarn) == 1

        def test_warns():
            with pytest.warns(DeprecationWarning, match="old"):
                warnings.warn("old", DeprecationWarning)

        def test_capsys(capsys):
            print("out")
            assert capsys.readouterr().out == "out\\n"

        def test_capfd(capfd):
            import os
            os.write(1, b"raw")
            assert capfd.readouterr().out == "raw"

        def test_capteesys(capsys):
            with capsys.disabled():
                print("shown")

        def test_fail(caplog):
            logging.warning("logged")
            print("printed")
            assert 0
    """
    plain = suite(test_it=source).compare()
    assert plain.counts()["call passed"] == 7


WARNINGS = """
    import warnings, pytest

    class OwnWarning(UserWarning):
        def __init__(self, number, text):
            super().__init__(f"{text} {number}")
            self.number = number

    class LocalWarning(Warning):
        pass

    def test_own():
        warnings.warn(OwnWarning(3, "own"))

    def test_local():
        warnings.warn("local", LocalWarning)

    def test_nested():
        class Inner(UserWarning):
            pass
        warnings.warn("inner", Inner)

    def test_user():
        warnings.warn("plain")

    def test_object():
        class Holder:
            def __repr__(self): return "holder"
        warnings.warn(UserWarning(Holder(), 1))

    @pytest.mark.filterwarnings("error::UserWarning")
    def test_error():
        warnings.warn("an error")
"""


def warning_texts(text: str) -> set[str]:
    return set(re.findall(r"^  (?:/?\S+/)?(test_\S+\.py:\d+: \w+: .*)$", text, re.M))


def test_warnings_summary(suite: MakeSuite) -> None:
    made = suite(test_it=WARNINGS)
    plain = made.compare()
    texts = warning_texts(plain.text)
    assert len(texts) >= 4
    assert any("OwnWarning: own 3" in text for text in texts)
    counted = re.findall(r"\d+ warnings", plain.text)
    for mode in (["-n0"], ["-n2"]):
        run = made.run("--fkit", *mode)
        assert warning_texts(run.text) == texts, mode
        assert re.findall(r"\d+ warnings", run.text) == counted, mode
        assert "INTERNALERROR" not in run.text


def test_warnings_as_errors(suite: MakeSuite) -> None:
    plain = suite(test_it=WARNINGS).compare("-Werror")
    assert plain.counts()["call failed"] == 6


def test_resource_warnings_are_errors(suite: MakeSuite) -> None:
    source = """
        import gc

        def test_leak(tmp_path):
            open(tmp_path / "file", "w")
            gc.collect()

        def test_thread():
            import threading
            thread = threading.Thread(target=lambda: 1 / 0)
            thread.start()
            thread.join()

        def test_pass():
            pass
    """
    plain = suite(test_it=source).compare("-Werror")
    assert plain.counts()["call failed"] == 2


def test_session_hooks_and_stop_options(suite: MakeSuite, pytester: pytest.Pytester) -> None:
    conftest = """
        def pytest_sessionfinish(session, exitstatus):
            if exitstatus == 1 and not hasattr(session.config, "workerinput"):
                with open("finished", "w") as file:
                    file.write(str(int(exitstatus)))
    """
    source = "def test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pass\n"
    made = suite(test_it=source, conftest=conftest)
    pytester.makeini("[pytest]\n")
    stepwise = [["--sw", "--sw-reset"]] if RESETS_STEPWISE else []
    for arguments in ([], ["-x"], ["--maxfail=1"], *stepwise):
        plain = made.compare(
            *arguments, modes=["n0"], crash=False,
            artefact=lambda directory: (directory / "finished").exists(),
        )  # fmt: skip
        assert len(plain.outcomes) == (2 if arguments else 3)


@pytest.mark.skipif(not RESETS_STEPWISE, reason="there is no --sw-reset")
def test_stepwise_goes_on_where_it_stopped(suite: MakeSuite, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\n")
    source = "def test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pass\n"
    made = suite(test_it=source)
    pytester.makeini("[pytest]\n")
    for mode in ("-n0", "-n1"):
        made.run("--fkit", mode, "--sw", "--sw-reset")
        again = made.run("--fkit", mode, "--sw")
        assert next(iter(again.outcomes)) == "test_it.py::test_b", again.text


def test_last_failed(suite: MakeSuite, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\n")
    source = "def test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pass\n"
    made = suite(test_it=source)
    pytester.makeini("[pytest]\n")
    for mode in ("-n0", "-n1"):
        made.run("--fkit", mode)
        again = made.run("--fkit", mode, "--lf")
        assert list(again.outcomes) == ["test_it.py::test_b"], mode
        first = made.run("--fkit", "-n0", "--ff")
        assert next(iter(first.outcomes)) == "test_it.py::test_b", mode


def test_pytester_inside_tests(suite: MakeSuite) -> None:
    source = """
        pytest_plugins = ["pytester"]

        def test_inner(pytester):
            pytester.makepyfile("def test_x(): pass")
            assert pytester.runpytest_inprocess("-p", "no:xdist").ret == 0
            assert pytester.runpytest_subprocess().ret == 0

        def test_fail(): assert 0
    """
    # By name: the directory of the inner test is below this one, and kept.
    plain = suite(test_it=source).compare("test_it.py", crash=False)
    assert plain.counts()["call passed"] == 1


def test_unittest_and_xunit(suite: MakeSuite) -> None:
    source = """
        import unittest

        def setup_module(module):
            module.value = 1

        class TestUnit(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                cls.wide = [1]

            def setUp(self):
                self.addCleanup(lambda: None)

            def test_pass(self):
                assert self.wide == [1] and value == 1

            def test_fail(self):
                self.fail("no")

            @unittest.skip("not now")
            def test_skip(self):
                pass

            @unittest.expectedFailure
            def test_expected(self):
                self.fail("yes")

            @unittest.expectedFailure
            def test_unexpected(self):
                pass

        class TestAsync(unittest.IsolatedAsyncioTestCase):
            async def test_async(self):
                pass

        class TestBroken(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                raise ValueError("broken")

            def test_one(self):
                pass

            def test_two(self):
                pass
    """
    plain = suite(test_it=source).compare()
    assert plain.counts()["setup failed"] == 2


ATTRIBUTES = """
    def pytest_runtest_logreport(report):
        with open("attributes.txt", "a") as file:
            here = {name: value for name, value in vars(report).items() if name not in TAKEN}
            print(report.nodeid, sorted(here.items(), key=str), report.head_line, file=file)

    def pytest_sessionfinish(session):
        with open("attributes.txt", "a") as file:
            print("counted for --maxfail:", session.testsfailed, file=file)

    # Sections: plain pytest captures what its terminal says of subtests.
    TAKEN = ("duration", "start", "stop", "longrepr", "sections", "fkit")
"""
SUBTESTS = """
    import unittest

    def test_sub(subtests):
        for number in range(3):
            with subtests.test("numbers", number=number):
                assert number != 1

    def test_all_pass(subtests):
        with subtests.test("fine"):
            pass

    def test_then_crash_free(subtests):
        with subtests.test("one"):
            assert 0
        assert 0

    class TestUnit(unittest.TestCase):
        def test_it(self):
            for number in range(3):
                with self.subTest(number=number):
                    self.assertNotEqual(number, 2)
"""


def test_subtests_of_pytest_itself(suite: MakeSuite) -> None:
    if pytest.version_tuple < (9,):
        pytest.skip("pytest has subtests from version 9 on")
    made = suite(test_it=SUBTESTS)
    plain = made.compare()
    assert plain.outcomes["test_it.py::test_sub"].count("call failed") >= 2

    def attributes(directory: Path) -> list[str]:
        path = directory / "attributes.txt"
        lines = path.read_text().splitlines()
        path.unlink()
        return lines

    suite(conftest=ATTRIBUTES)
    (made.path / "test_zz_crash.py").unlink()
    said = [made.run(*mode, artefact=attributes) for mode in ((), ("--fkit", "-n0"))]
    assert said[0].artefact == said[1].artefact
    # Worker and controller make the report once more each; xdist quotes the value anew.
    assert "SUBFAILED[numbers] (number=1) test_it" in made.run("--fkit", "-n1").text


def test_failing_subtest_is_counted_though_the_test_dies_after_it(suite: MakeSuite) -> None:
    source = """
        import os
        def test_sub(subtests):
            with subtests.test("one"):
                assert 0
            os._exit(3)
    """
    if pytest.version_tuple < (9,):
        pytest.skip("pytest has subtests from version 9 on")
    made = suite(test_it=source)
    for mode in ("-n0", "-n1"):
        run = made.run("--fkit", mode)
        assert run.outcomes["test_it.py::test_sub"].count("call failed") == 2, run.text


JUNIT = """
    import pytest, sys

    @pytest.fixture(scope="session", autouse=True)
    def wide(record_testsuite_property):
        record_testsuite_property("wide", 1)

    @pytest.fixture(scope="module")
    def ends(record_testsuite_property):
        yield
        record_testsuite_property("at the end", "of a fixture")

    def test_pass(record_testsuite_property, record_property, record_xml_attribute, ends):
        record_testsuite_property("colour", "red")
        record_property("p", "v")
        record_xml_attribute("extra", "yes")
        print("to stdout")

    def test_fail():
        print("to stderr", file=sys.stderr)
        assert 0

    @pytest.mark.parametrize("number", range(3))
    def test_more(number, record_testsuite_property):
        record_testsuite_property("number", number)

    def test_not_a_name(record_testsuite_property):
        record_testsuite_property(1, "x")
"""


def junit(directory: Path) -> Any:
    root = ET.parse(directory / "junit.xml").getroot()
    suites = [root] if root.tag == "testsuite" else list(root)
    cases = {
        str(case.get("name")): (
            case.get("extra"),
            sorted(child.tag for child in case if child.tag != "properties"),
            sorted(
                (each.get("name"), each.get("value"))
                for each in case.iter("property")
                if not each.get("name", "").startswith("fkit_")
            ),
            sorted(
                (child.tag, child.text.strip())
                for child in case
                if child.tag.startswith("system") and child.text
            ),
        )
        for case in root.iter("testcase")
        if case.get("name") != "test_crash"
    }
    properties = sorted(
        (each.get("name"), each.get("value"))
        for one in suites
        for each in one.findall("properties/property")
    )
    return properties, cases


@pytest.mark.parametrize("family", ["xunit1", "xunit2"])
def test_junit_file_has_all_records_with_workers_too(suite: MakeSuite, family: str) -> None:
    plain = suite(test_it=JUNIT).compare(
        "--junitxml=junit.xml", f"-ojunit_family={family}", "-ojunit_logging=all", artefact=junit
    )
    properties, cases = plain.artefact
    assert ("colour", "red") in properties
    assert ("at the end", "of a fixture") in properties
    assert len(properties) == 6
    assert cases["test_pass"][0] == ("yes" if family == "xunit1" else None)
    assert any("to stdout" in text for _, text in cases["test_pass"][3])


# --- what is printed ----------------------------------------------------------------------------

PRINTED = """
    import logging, sys, time, unittest, warnings
    import pytest

    @pytest.fixture(scope="module")
    def wide():
        print("setup of wide")
        logging.getLogger("wide").warning("logged in wide")
        yield
        print("teardown of wide")

    @pytest.fixture
    def broken():
        raise ValueError("broken fixture")

    @pytest.fixture
    def breaks():
        yield
        raise ValueError("broken teardown")

    def test_pass(wide):
        print("to stdout")

    def test_fail(wide):
        print("to stdout")
        print("to stderr", file=sys.stderr)
        logging.warning("logged %s", 1)
        one = {"a": [1, 2, 3], "b": "text"}
        assert one == {"a": [1, 2, 4], "b": "test"}

    def test_error(broken): pass

    def test_teardown_error(breaks, wide): assert 0

    @pytest.mark.skip(reason="not now")
    def test_skip(): pass

    def test_skip_inside():
        pytest.skip("inside")

    @pytest.mark.xfail(reason="known")
    def test_xfail(): assert 0

    @pytest.mark.xfail
    def test_xpass(): pass

    @pytest.mark.xfail(strict=True, reason="strict")
    def test_xpass_strict(): pass

    def test_warns():
        warnings.warn("a warning")

    def test_subtests_of_unittest():
        raise Exception("chained") from KeyError("cause")

    class TestUnit(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            print("setUpClass")

        def test_unit(self):
            self.assertEqual(1, 2)

    @pytest.mark.parametrize("text", ["a", "\\u00e4", "b\\nc"])
    def test_parameters(text, wide): assert text == "a"

    def test_capsys_fails(capsys):
        print("in capsys")
        assert 0
"""


def normalised(text: str) -> list[str]:
    """Without what differs from run to run."""
    text = re.sub(r"\d+\.\d+s|0x[0-9a-f]+", "*", text)
    return [
        re.sub(r"=+ (.*?) =+", r"= \1 =", line.rstrip())
        for line in text.splitlines()
        if not line.startswith(("fkit: ", "running: ", "     in: "))
    ]


# Older ones print what wide fixtures print at the end of a run that stops straight to the terminal,
# and show TEARDOWN as often as somebody asked for the fixture.
_OLDER = pytest.mark.skipif(pytest.version_tuple < (8, 1), reason="this pytest prints more")


@pytest.mark.in_turn(2)
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-v"],
        ["-q"],
        ["-rA"],
        ["-vv", "-rfEsxXp", "--tb=short"],
        pytest.param(["--tb=line", "-x"], marks=_OLDER),
        ["--tb=long", "--show-capture=no"],
        pytest.param(["--setup-show"], marks=_OLDER),
        pytest.param(["--setup-plan"], marks=_OLDER),
        pytest.param(["--setup-only"], marks=_OLDER),
        ["--log-cli-level=INFO"],
        ["--log-level=INFO", "-l"],
        ["--durations=3", "-vv"],
        ["--capture=sys", "-rA"],
        ["--color=yes"],
        ["-Werror"],
        ["-p", "no:logging", "-p", "no:warnings"],
        ["--import-mode=importlib"],
        ["-o", "console_output_style=count"],
        ["-o", "console_output_style=classic", "-v"],
        pytest.param(["--maxfail=2", "--no-header"], marks=_OLDER),
        ["-k", "fail or error"],
        ["--collect-only", "-q"],
    ],
    ids=lambda arguments: "_".join(arguments) or "plain",
)
def test_prints_the_same_without_workers(
    suite: MakeSuite, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")  # the order in which assertions show differences
    made = suite(test_it=PRINTED)
    plain = made.run(*arguments)
    run = made.run("--fkit", "-n0", *arguments)
    assert run.status == plain.status
    before, after = normalised(plain.text), normalised(run.text)
    if "--durations=3" in arguments:
        before, after = ([line for line in lines if "slowest" in line] for lines in (before, after))
        assert before
    assert after == before


@pytest.mark.parametrize("capture", ["no", "tee-sys"])
def test_prints_the_same_where_tests_write_to_the_terminal(suite: MakeSuite, capture: str) -> None:
    source = """
        import pytest

        @pytest.fixture(scope="module")
        def wide():
            print("setup of wide")
            yield

        def test_a(wide): print("from a")
        def test_b(): print("from b")
        def test_c(): assert 0
    """
    made = suite(test_it=source)
    plain = made.run(f"--capture={capture}")
    run = made.run("--fkit", "-n0", f"--capture={capture}")
    assert "test_it.py setup of wide\nfrom a\n.from b\n.F" in plain.text
    assert normalised(run.text) == normalised(plain.text)


def test_log_file(suite: MakeSuite) -> None:
    def log(directory: Path) -> Any:
        return sorted(
            re.sub(r"\S+:\d+", "", line)
            for line in (directory / "log.txt").read_text().splitlines()
        )

    plain = suite(test_it=PRINTED).compare(
        "--log-file=log.txt", "--log-file-level=INFO", artefact=log, modes=["n0"], crash=False
    )
    assert len(plain.artefact) == 2


def test_durations_are_those_of_the_phases(suite: MakeSuite) -> None:
    source = """
        import pytest, time

        @pytest.fixture(scope="module")
        def wide():
            time.sleep(0.2)
            yield
            time.sleep(0.3)

        def test_slow(wide):
            time.sleep(0.4)
    """
    made = suite(test_it=source)
    for mode in ("-n0", "-n1"):
        run = made.run("--fkit", mode, "--durations=0")
        found = re.findall(r"(\d\.\d+)s (setup|call|teardown) +test_it.py::test_slow", run.text)
        seconds = {phase: float(text) for text, phase in found}
        for phase, least in (("setup", 0.2), ("call", 0.4), ("teardown", 0.3)):
            assert least <= seconds[phase] < least + 3, run.text


# --- what a test sees ---------------------------------------------------------------------------

SEEN = """
    import faulthandler, gc, json, os, signal, sys, threading
    import pytest

    def handler(number):
        found = signal.getsignal(number)
        return str(getattr(found, "__qualname__", found))

    def test_seen():
        here = {
            "gc": [gc.isenabled(), gc.get_threshold(), gc.get_debug()],
            "threads": [thread.name for thread in threading.enumerate()],
            "main": threading.current_thread() is threading.main_thread(),
            "handlers": {int(number): handler(number) for number in signal.valid_signals()},
            "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
            "pending": sorted(map(int, signal.sigpending())),
            "timers": [signal.getitimer(which)[0] for which in (0, 1, 2)],
            "wakeup": signal.set_wakeup_fd(-1),
            "switch interval": sys.getswitchinterval(),
            "recursion limit": sys.getrecursionlimit(),
            "trace": [sys.gettrace() is None, sys.getprofile() is None],
            "umask": os.umask(0o22),
            "directory": os.getcwd(),
            "environment": sorted(
                name for name in os.environ
                if name != "PYTORCH_NVML_BASED_CUDA_CHECK" and not name.startswith("FKIT_")
            ),
            "current": os.environ["PYTEST_CURRENT_TEST"],
            "first free descriptor": os.dup(0),
            "faulthandler": faulthandler.is_enabled(),
            "hooks": [
                sys.excepthook is sys.__excepthook__,
                threading.excepthook.__module__,
                sys.unraisablehook.__module__,
            ],
            "niceness": os.nice(0),
        }
        with open(f"seen-{os.getpid()}", "w") as file:
            json.dump(here, file)

    def test_objects():
        class Here: pass
        here = Here()
        assert any(each is here for each in gc.get_objects())
        assert gc.get_freeze_count() == 0

    def test_collects():
        class Here: pass
        gone = []
        import weakref
        here = Here()
        here.self = here
        weakref.finalize(here, gone.append, 1)
        del here
        gc.collect()
        assert gone == [1]
"""

SEES_COLLECTOR = """
    import gc
    import pytest

    def look(moment):
        # As Hypothesis asks who holds a random number generator of a module imported before it.
        found = any(names is vars(pytest) for names in gc.get_referrers(pytest.Session))
        with open("collector", "a") as file:
            file.write(f"{moment}: {found}, {gc.get_freeze_count()} frozen\\n")

    look("import")
    def pytest_collection_finish(): look("collected")
    def pytest_terminal_summary(): look("summary")
    def pytest_unconfigure(): look("end")
"""


def test_a_test_and_hooks_see_what_plain_pytest_shows_them(suite: MakeSuite) -> None:
    made = suite(test_it=SEEN, conftest=SEES_COLLECTOR)

    def seen(directory: Path) -> Any:
        found = []
        for name in ("seen-*", "collector"):
            [path] = directory.glob(name)
            found.append(path.read_text())
            path.unlink()
        return json.loads(found[0]), sorted(set(found[1].splitlines()))

    for plain, arguments in (
        ([], ["--fkit", "-n0"]),
        ([], ["--fkit", "-n0", "--fkit-isolation=session"]),
        (["-n1"], ["--fkit", "-n1"]),
        (["-n1"], ["--fkit", "-n1", "--fkit-isolation=session"]),
    ):
        stock = made.run(*plain, artefact=seen)
        run = made.run(*arguments, artefact=seen)
        assert run.outcomes == stock.outcomes, run.text
        assert run.artefact == stock.artefact, arguments


def test_random_state_is_as_documented(suite: MakeSuite) -> None:
    # docs/reference/limits.md: random is seeded anew in each forked process, NumPy's state is the
    # same in each.
    conftest = "import random\nrandom.seed(1)\n"
    source = """
        import random, pytest
        @pytest.mark.parametrize("number", range(3))
        def test_number(number):
            with open("numbers", "a") as file:
                file.write(f"{random.random()}\\n")
    """
    made = suite(test_it=source, conftest=conftest)
    made.run("--fkit", "-n0")
    numbers = (made.path / "numbers").read_text().split()
    assert len(set(numbers)) == 3


# --- xdist's own --------------------------------------------------------------------------------

GROUPS = """
    import os, pytest

    def ran(request):
        with open(f"ran-{os.environ['PYTEST_XDIST_WORKER']}", "a") as file:
            file.write(request.node.name.partition("@")[0] + "\\n")

    @pytest.mark.parametrize("number", range(8))
    @pytest.mark.xdist_group("one")
    def test_one(number, request):
        ran(request)

    @pytest.mark.parametrize("number", range(8))
    @pytest.mark.xdist_group("two")
    def test_two(number, request):
        ran(request)

    class TestClass:
        @pytest.mark.parametrize("number", range(4))
        def test_class(self, number, request):
            ran(request)

    def test_fail(request, worker_id, testrun_uid):
        ran(request)
        assert worker_id == os.environ["PYTEST_XDIST_WORKER"]
        assert testrun_uid == os.environ["PYTEST_XDIST_TESTRUNUID"]
        assert 0
"""


def workers_of(directory: Path, name: str) -> set[str]:
    found = set()
    for path in directory.glob("ran-*"):
        if any(line.startswith(name) for line in path.read_text().splitlines()):
            found.add(path.name)
    return found


@pytest.mark.parametrize("dist", ["load", "loadscope", "loadfile", "loadgroup", "worksteal"])
def test_ways_to_distribute(suite: MakeSuite, dist: str) -> None:
    dies = "import os\ndef test_dies(): os.abort()\n"
    made = suite(test_it=GROUPS, test_other=GROUPS, test_that=dies)
    run = made.run("--fkit", "-n2", f"--dist={dist}", "-rA")
    assert run.status == 1
    assert run.counts() == {
        "setup passed": 43, "call passed": 40, "call failed": 3, "teardown passed": 43,
    }, run.text  # fmt: skip
    ran = [line for path in made.path.glob("ran-*") for line in path.read_text().splitlines()]
    assert set(Counter(ran).values()) == {2}  # once in each of the two files
    if dist == "loadgroup":
        assert len(workers_of(made.path, "test_one")) == 1
        assert len(workers_of(made.path, "test_two")) == 1
        # The names that xdist shows on versions of pytest where its own grouping works.
        assert "test_it.py::test_one[0]@one" in run.outcomes
        assert "PASSED test_other.py::test_two[7]@two" in run.text
    if dist == "loadfile":
        assert all(
            len(workers_of(made.path, name)) in (1, 2) for name in ("test_one", "test_class")
        )


def test_group_of_a_test_that_dies(suite: MakeSuite) -> None:
    source = """
        import os, pytest
        @pytest.mark.xdist_group("one")
        def test_dies(): os.abort()
        @pytest.mark.xdist_group("one")
        def test_lives(): pass
    """
    run = suite(test_it=source).run("--fkit", "-n2", "--dist=loadgroup")
    assert run.outcomes["test_it.py::test_dies@one"][1] == "call failed"
    assert run.outcomes["test_it.py::test_lives@one"][1] == "call passed"
    assert "test_it.py::test_dies\n" in run.text  # the command that runs it again


def test_dist_each_runs_all_tests_on_each_worker(suite: MakeSuite) -> None:
    made = suite(test_it=GROUPS)
    run = made.run("--fkit", "-n2", "--dist=each")
    assert run.counts()["call passed"] == 40
    assert run.counts()["call failed"] == 2
    assert len(workers_of(made.path, "test_fail")) == 2


def test_dist_no_runs_here(suite: MakeSuite) -> None:
    source = "import os\ndef test_it(): assert 'PYTEST_XDIST_WORKER' not in os.environ\n"
    assert suite(test_it=source).run("--fkit", "-n0", "--dist=no").status == 0


def test_tests_that_run_pytest(suite: MakeSuite) -> None:
    source = """
        pytest_plugins = "pytester"

        INNER = (
            "import os, sys\\n"
            "def test_passes(): print('to', 'out'); print('to', 'err', file=sys.stderr)\\n"
            "def test_dies(): os._exit(3)\\n"
        )
        ARGUMENTS = "-p", "xdist", "-p", "fkit", "--fkit", "-n0"

        def test_within_its_process(pytester):
            pytester.makepyfile(INNER)
            for isolation in "function", "session":
                result = pytester.runpytest_inprocess(
                    *ARGUMENTS, "-s", f"--fkit-isolation={isolation}"
                )
                result.assert_outcomes(passed=1, errors=1)
                assert "to out" in result.stdout.str()
                assert "to err" in result.stdout.str() + result.stderr.str()
            print("ran", "them")
            assert 0

        def test_next(pytester):
            pytester.makepyfile(INNER)
            pytester.runpytest_subprocess(*ARGUMENTS).assert_outcomes(passed=1, errors=1)
    """
    plain = suite(test_it=source).compare(
        "test_it.py", "--junitxml=junit.xml", "-ojunit_logging=all", crash=False,
        artefact=lambda directory: "ran them" in (directory / "junit.xml").read_text(),
    )  # fmt: skip
    assert plain.artefact
    assert plain.counts() == {
        "setup passed": 2, "call passed": 1, "call failed": 1, "teardown passed": 2,
    }  # fmt: skip
