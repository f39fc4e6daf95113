"""Suites whose wide fixtures write down when they are set up and torn down, by directory."""

from __future__ import annotations

CONFTEST = """
import builtins, json, os
import pytest

def happened(text):
    descriptor = os.open(os.environ["FKIT_EVENTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{text}\\n".encode())
    os.close(descriptor)

builtins.happened = happened

class Recorder:
    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report):
        said = [report.nodeid, report.when, report.outcome, getattr(report, "wasxfail", None)]
        tuples = isinstance(report.longrepr, tuple)
        text = repr(report.longrepr) if tuples else report.longreprtext
        happened(json.dumps(["report", *said, text, report.sections]))

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder())
"""

SUITES = {
    "parametrized": {
        "test_a.py": """
            import pytest

            @pytest.fixture(scope="session", params=["x", "y"])
            def widest(request):
                happened(f"set up {request.param}")
                print("setting up", request.param)
                yield request.param
                happened(f"tear down {request.param}")
                print("tearing down", request.param)

            @pytest.fixture(scope="module", params=[1, 2])
            def wide(request, widest):
                happened(f"set up {request.param} {widest}")
                yield request.param
                happened(f"tear down {request.param} {widest}")

            def test_1(widest):
                happened("test 1")

            def test_2(wide, widest):
                happened("test 2")

            def test_3(wide):
                happened("test 3")

            def test_4():
                happened("test 4")
        """,
        "test_b.py": """
            import pytest

            @pytest.fixture(scope="module")
            def given(request):
                happened(f"set up {request.param}")
                yield request.param
                happened(f"tear down {request.param}")

            @pytest.mark.parametrize("given", ["a", "b"], indirect=True)
            def test_1(given):
                happened(f"test 1 {given}")

            @pytest.mark.parametrize("given", ["b", "a"], indirect=True)
            @pytest.mark.parametrize("other", [1, 2], scope="module")
            def test_2(given, other):
                happened(f"test 2 {given} {other}")

            @pytest.mark.parametrize("given", ["a", "c"], indirect=True, scope="class")
            class TestThese:
                def test_3(self, given):
                    happened(f"test 3 {given}")

                def test_4(self, given):
                    happened(f"test 4 {given}")
        """,
    },
    "package": {
        "pkg/__init__.py": "",
        "pkg/conftest.py": """
            import pytest

            @pytest.fixture(scope="package", autouse=True)
            def package():
                happened("set up package")
                print("setting up package")
                yield
                happened("tear down package")
                print("tearing down package")
        """,
        "pkg/test_a.py": "def test_1(package): happened('1')\ndef test_2(): happened('2')",
        "pkg/sub/__init__.py": "",
        "pkg/sub/test_b.py": "def test_3(): happened('3')",
        "pkg/test_z.py": "def test_z(): happened('z')",
        "test_outside.py": "def test_o(): happened('o')",
    },
    "scopes": {
        "conftest.py": """
            import pytest

            def scope(fixture_name, config):
                return "module"

            @pytest.fixture(scope=scope)
            def dynamic():
                happened("set up dynamic")
                yield
                happened("tear down dynamic")

            @pytest.fixture(scope="session", autouse=True)
            def of_directory():
                happened("set up of_directory")
                yield
                happened("tear down of_directory")

            @pytest.fixture(scope="class", autouse=True)
            def of_class(request):
                happened(f"set up of_class for {request.cls}")
                if request.cls is not None:
                    request.cls.given = 5
                yield
                happened("tear down of_class")

            @pytest.fixture(scope="session")
            def layered():
                happened("set up layered")
                yield "session"
                happened("tear down layered")
        """,
        "test_a.py": """
            import pytest

            @pytest.fixture(scope="module")
            def layered(layered):
                happened("set up layered again")
                yield f"{layered} module"
                happened("tear down layered again")

            def test_1(layered, dynamic):
                assert layered == "session module"

            class TestClass:
                @pytest.fixture(scope="class")
                def layered(self, layered):
                    happened("set up layered in class")
                    yield f"{layered} class"
                    happened("tear down layered in class")

                def test_2(self, layered):
                    assert (layered, self.given) == ("session module class", 5)

                def test_3(self, layered):
                    assert (layered, self.given) == ("session module class", 5)

            class TestFunction:
                @pytest.fixture
                def layered(self, layered):
                    happened("set up layered in function")
                    yield f"{layered} function"
                    happened("tear down layered in function")

                def test_4(self, layered, dynamic):
                    assert layered == "session module function"

            def test_5(layered):
                assert layered == "session module"
        """,
        "test_b.py": "def test_6(layered, dynamic): assert layered == 'session'",
    },
    "requests": {
        "test_a.py": """
            import pytest

            @pytest.fixture(scope="module")
            def wide(request):
                request.addfinalizer(lambda: happened("first finalizer"))
                request.addfinalizer(lambda: (happened("second finalizer"), 1 / 0))
                request.node.addfinalizer(lambda: happened("finalizer of node"))
                happened("set up wide")

            @pytest.fixture
            def narrow(request):
                request.getfixturevalue("wide")
                happened("set up narrow")
                request.addfinalizer(lambda: happened("tear down narrow"))

            def test_1(narrow):
                happened("test 1")

            def test_2(wide):
                happened("test 2")

            def test_3(request):
                request.getfixturevalue("wide")
                happened("test 3")

            def test_4():
                happened("test 4")
        """,
        "test_b.py": """
            import pytest

            @pytest.fixture(scope="module")
            def late():
                happened("set up late")
                yield
                happened("tear down late")

            def test_1(request):
                request.getfixturevalue("late")
                happened("test 1")
        """,
        "test_c.py": """
            import pytest

            @pytest.fixture(scope="session")
            def asks(request):
                happened("set up asks")
                yield request.getfixturevalue("asked")
                happened("tear down asks")

            @pytest.fixture(scope="session")
            def asked():
                happened("set up asked")
                yield 1
                happened("tear down asked")

            @pytest.fixture(autouse=True)
            def automatic(request):
                if "asked" in request.fixturenames:
                    request.getfixturevalue("asks")
                happened("set up automatic")
                yield
                happened("tear down automatic")

            def test_1():
                happened("test 1")

            def test_2(asked):
                happened("test 2")
        """,
    },
    "xunit": {
        "test_a.py": """
            import unittest

            def setup_module(module):
                happened("setup_module")
                print("setting up module")

            def teardown_module(module):
                happened("teardown_module")
                print("tearing down module")

            def setup_function(function):
                happened(f"setup_function {function.__name__}")

            def teardown_function(function):
                happened(f"teardown_function {function.__name__}")

            def test_1():
                happened("test 1")

            def test_2():
                happened("test 2")

            class TestClass:
                @classmethod
                def setup_class(cls):
                    happened("setup_class")
                    cls.given = 1

                @classmethod
                def teardown_class(cls):
                    happened("teardown_class")
                    assert cls.given == 1

                def setup_method(self, method):
                    happened(f"setup_method {method.__name__}")

                def teardown_method(self, method):
                    happened(f"teardown_method {method.__name__}")

                def test_3(self):
                    assert self.given == 1

                def test_4(self):
                    assert self.given == 1

            class Unittest(unittest.TestCase):
                @classmethod
                def setUpClass(cls):
                    happened("setUpClass")
                    cls.addClassCleanup(lambda: happened("class cleanup"))
                    cls.given = 2

                @classmethod
                def tearDownClass(cls):
                    happened("tearDownClass")
                    print("tearing down class")

                def setUp(self):
                    happened("setUp")

                def tearDown(self):
                    happened("tearDown")

                def test_5(self):
                    self.assertEqual(self.given, 2)

                def test_6(self):
                    self.assertEqual(self.given, 3)

                @unittest.skip("never")
                def test_7(self):
                    happened("never")

                @unittest.expectedFailure
                def test_8(self):
                    self.fail()

            @unittest.skip("the class")
            class Skipped(unittest.TestCase):
                @classmethod
                def setUpClass(cls):
                    happened("never")

                def test_9(self):
                    happened("never")

            class Skips(unittest.TestCase):
                @classmethod
                def setUpClass(cls):
                    happened("setUpClass that skips")
                    raise unittest.SkipTest("in setUpClass")

                def test_10(self):
                    happened("never")

                def test_11(self):
                    happened("never")

            class Raises(unittest.TestCase):
                @classmethod
                def setUpClass(cls):
                    happened("setUpClass that raises")
                    raise ValueError("in setUpClass")

                def test_12(self):
                    happened("never")

                def test_13(self):
                    happened("never")
        """,
        "test_b.py": """
            import unittest

            def setUpModule():
                happened("setUpModule")

            def tearDownModule():
                happened("tearDownModule")

            class Unittest(unittest.TestCase):
                def test_1(self):
                    pass

                def test_2(self):
                    pass
        """,
    },
    "outcomes": {
        "test_a.py": """
            import pytest

            @pytest.fixture(scope="module")
            def skips():
                happened("skips")
                pytest.skip("wide skip")

            @pytest.fixture(scope="module")
            def xfails():
                happened("xfails")
                pytest.xfail("wide xfail")

            @pytest.fixture(scope="module")
            def raises():
                happened("raises")
                print("about to raise")
                raise RuntimeError("wide error")

            @pytest.fixture(scope="module")
            def fails():
                happened("fails")
                pytest.fail("wide failure")

            @pytest.fixture(scope="module")
            def yields_nothing():
                if False:
                    yield

            @pytest.fixture(scope="module")
            def asks_for_nothing_there(nothing_there):
                pass

            @pytest.fixture(scope="module")
            def asks_for_a_narrow_one(tmp_path):
                pass

            def test_1(skips): pass
            def test_2(skips): pass
            def test_3(xfails): pass
            def test_4(xfails): pass
            def test_5(raises): pass
            def test_6(raises): pass

            @pytest.mark.xfail
            def test_7(raises):
                pass

            @pytest.mark.xfail(raises=RuntimeError)
            def test_8(raises):
                pass

            @pytest.mark.xfail(raises=ValueError)
            def test_9(raises):
                pass

            def test_10(fails): pass
            def test_11(fails): pass
            def test_12(asks_for_nothing_there): pass
            def test_13(asks_for_a_narrow_one): pass
            def test_14(asks_for_a_narrow_one): pass

            @pytest.mark.skip
            def test_skipped(raises, skips):
                happened("never")

            @pytest.mark.xfail(run=False)
            def test_not_run(raises, skips):
                happened("never")
        """,
        "test_b.py": """
            import pytest

            @pytest.fixture(scope="module", autouse=True)
            def module():
                yield
                happened("tear down module")
                print("tearing down module")
                raise RuntimeError("in teardown of module")

            @pytest.fixture(scope="class")
            def of_class():
                yield
                happened("tear down of_class")
                raise RuntimeError("in teardown of class")

            class TestClass:
                def test_1(self, of_class):
                    pass

                @pytest.mark.skip
                def test_2(self):
                    pass

            def test_3():
                assert not "a failure"
        """,
        "conftest.py": """
            import pytest

            @pytest.fixture(scope="module")
            def raises_elsewhere():
                raise RuntimeError("in a conftest")

            @pytest.fixture(scope="module")
            def tears_down_elsewhere():
                yield
                raise RuntimeError("in a conftest's teardown")
        """,
        "test_c.py": """
            def test_1(raises_elsewhere): pass
            def test_2(raises_elsewhere): pass
            def test_3(tears_down_elsewhere): pass
        """,
    },
    "hooks": {
        "conftest.py": """
            import pytest

            def pytest_fixture_setup(fixturedef, request):
                happened(f"setup of {fixturedef.argname} {request.scope} {request.node.nodeid}")

            def pytest_fixture_post_finalizer(fixturedef, request):
                happened(f"finalized {fixturedef.argname} {fixturedef.scope}")

            def pytest_runtest_teardown(item, nextitem):
                next_one = nextitem and (nextitem.nodeid, nextitem.getparent(pytest.Module).name)
                happened(f"teardown of {item.name}, next {next_one}")
        """,
        "test_a.py": """
            import pytest

            @pytest.fixture(scope="session")
            def session():
                yield

            @pytest.fixture(scope="module")
            def module(session):
                yield

            @pytest.fixture
            def function(module):
                yield

            def test_1(function):
                happened("test 1")

            def test_2(function):
                happened("test 2")
        """,
        "test_b.py": "def test_3(): happened('3')",
    },
    "output": {
        "test_a.py": """
            import logging, sys, warnings
            import pytest

            def say(text):
                print(text)
                print(text, "on stderr", file=sys.stderr)
                logging.getLogger("wide").warning(text)
                warnings.warn(text)

            @pytest.fixture(scope="module")
            def wide():
                say("set up wide")
                yield
                say("tear down wide")

            @pytest.fixture
            def narrow(wide):
                logging.getLogger("narrow").warning("set up narrow")
                print("set up narrow")
                yield
                print("tear down narrow")

            def test_1(narrow, caplog):
                say("test 1")

            def test_2(narrow):
                say("test 2")
                assert not "a failure"
        """,
    },
}
