"""What pytest itself offers: plain and under fkit."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, Callable

import pytest

MakeSuite = Callable[..., Any]


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


YAML = """
    import pytest, yaml

    def pytest_collect_file(parent, file_path):
        if file_path.suffix == ".yaml":
            return YamlFile.from_parent(parent, path=file_path)

    class YamlFile(pytest.File):
        def collect(self):
            for name, value in yaml.safe_load(self.path.read_text()).items():
                yield YamlItem.from_parent(self, name=name, value=value)

        def setup(self):
            with open("setups", "a") as file:
                file.write("x")

    class YamlItem(pytest.Item):
        def __init__(self, *, value, **kwargs):
            super().__init__(**kwargs)
            self.value = value

        def runtest(self):
            if self.value != "right":
                raise YamlError(self.name)

        def repr_failure(self, excinfo):
            return f"not right: {excinfo.value}"

        def reportinfo(self):
            return self.path, 0, f"yaml: {self.name}"

    class YamlError(Exception):
        pass
"""


def test_items_that_are_no_functions(suite: MakeSuite) -> None:
    made = suite(conftest=YAML)
    (made.path / "test_it.yaml").write_text("one: right\ntwo: wrong\nthree: right\n")
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
                (element.get("name"), element.get("value")) for element in root.iter("property")
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


def test_session_hooks_and_stop_options(suite: MakeSuite) -> None:
    conftest = """
        def pytest_sessionfinish(session, exitstatus):
            if exitstatus == 1 and not hasattr(session.config, "workerinput"):
                with open("finished", "w") as file:
                    file.write(str(int(exitstatus)))
    """
    source = "def test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pass\n"
    made = suite(test_it=source, conftest=conftest)
    for arguments in ([], ["-x"], ["--maxfail=1"], ["--sw", "-p", "cacheprovider"]):
        made.compare(
            *arguments, modes=["n0"], crash=False,
            artefact=lambda directory: (directory / "finished").exists(),
        )  # fmt: skip


def test_last_failed(suite: MakeSuite, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\n")
    source = "def test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pass\n"
    made = suite(test_it=source)
    pytester.makeini("[pytest]\n")
    for mode in ("-n0", "-n2"):
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
    plain = suite(test_it=SUBTESTS).compare()
    assert plain.outcomes["test_it.py::test_sub"].count("call failed") >= 2


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
