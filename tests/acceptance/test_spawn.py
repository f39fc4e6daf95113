"""Tests that run in fresh interpreters: started, warmed up, lost and replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from inner import run_pytest, write_files
from inner_runs import run

SPAWN = "--fkit-start-method=spawn"


@pytest.fixture(params=["-n0", "-n1"])
def workers(request: pytest.FixtureRequest) -> str:
    return str(request.param)


WHERE = """
    import os
    import pytest

    IMPORTED_IN = os.getpid()

    def note(name):
        with open("pids", "a") as file:
            file.write(f"{name} {os.getpid()} {IMPORTED_IN}\\n")

    class TestClass:
        def test_1(self):
            note("a")

        def test_2(self):
            note("b")

    def test_3():
        note("c")
"""


def pids(directory: Path) -> dict[str, str]:
    """By the letter of the test, the pid of its process, which imported the module, too."""
    found = {}
    for line in (directory / "pids").read_text().splitlines():
        name, pid, importer = line.split()
        assert pid == importer
        found[name] = pid
    return found


SHARED = {
    (): [{"a", "b", "c"}, {"d", "e", "f"}],
    ("--fkit-isolation=function",): [{each} for each in "abcdef"],
    ("--fkit-isolation=class",): [{"a", "b"}, {"c"}, {"d", "e"}, {"f"}],
    ("--fkit-isolation=session",): [set("abcdef")],
}


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("isolation", list(SHARED), ids=lambda given: given[0] if given else "")
def test_a_fresh_interpreter_lives_as_long_as_is_asked_for(
    tmp_path: Path, workers: str, isolation: tuple[str, ...]
) -> None:
    other = WHERE
    for before, after in zip("abc", "def"):
        other = other.replace(f'note("{before}")', f'note("{after}")')
    outcome = run(
        tmp_path, {"test_one.py": WHERE, "test_two.py": other}, "--fkit", workers, SPAWN, *isolation
    )
    assert outcome.status == 0, outcome.stdout
    found = pids(tmp_path)
    together: dict[str, set[str]] = {}
    for name, pid in found.items():
        together.setdefault(pid, set()).add(name)
    assert list(together.values()) == SHARED[isolation]
    said = f"6 tests shared a process, because of {SPAWN}" in outcome.stdout
    assert said == (not isolation), outcome.stdout


ENVIRONMENT = {
    "conf/our.ini": "[pytest]\naddopts = -p early\nmarkers = slow\n",
    "early.py": "import pytest\n@pytest.fixture\ndef early(): return 'early'\n",
    "plugins/plugged.py": "import pytest\n@pytest.fixture\ndef plugged(): return 'plugged'\n",
    "a/conftest.py": """
import os, sys
def pytest_addoption(parser):
    parser.addoption("--ours")
os.environ.setdefault(f"ARGV_OF_{os.environ.get('PYTEST_XDIST_WORKER')}", repr(sys.argv))
os.environ["FROM_CONFTEST"] = os.environ.get("FROM_CONFTEST", "") + "x"
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "plugins"))
pytest_plugins = ["plugged"]
""",
    "b/conftest.py": """
import os
import subprocess
import sys
def pytest_collection_finish(session):
    os.chdir(os.path.dirname(__file__))
""",
    "b/test_it.py": """
import os, sys
import pytest, plugged

@pytest.mark.slow
def test_it(plugged, early, pytestconfig, tmp_path, testrun_uid):
    assert (plugged, early) == ("plugged", "early")
    assert pytestconfig.getoption("ours") == "given"
    assert pytestconfig.getini("console_output_style") == "classic"
    assert pytestconfig.inipath.name == "our.ini"
    assert (pytestconfig.rootpath / "b" / "test_it.py").samefile(__file__)
    assert pytestconfig.invocation_params.dir == pytestconfig.rootpath
    assert os.environ["FROM_CONFTEST"].startswith("x")
    assert os.getcwd() == os.path.dirname(__file__)
    assert hash("text") == int(os.environ["HASH_OF_TEXT"])
    assert repr(sys.argv) == os.environ[f"ARGV_OF_{os.environ.get('PYTEST_XDIST_WORKER')}"]
    assert testrun_uid

def test_warns():
    import warnings
    with pytest.raises(DeprecationWarning):
        warnings.warn("no", DeprecationWarning)
""",
}


def test_options_and_environment_are_the_workers(tmp_path: Path, workers: str) -> None:
    write_files(tmp_path, ENVIRONMENT)
    hashed = subprocess.run(
        [sys.executable, "-c", "print(hash('text'))"],
        env={**os.environ, "PYTHONHASHSEED": "7"}, stdout=subprocess.PIPE, text=True, check=True,
    ).stdout  # fmt: skip
    outcome = run_pytest(
        tmp_path,
        *("-c", "conf/our.ini", "--rootdir=.", "a", "b", "--ours=given"),
        *(
            "-o",
            "console_output_style=classic",
            "-W",
            "error:no:DeprecationWarning",
            "-p",
            "no:cacheprovider",
        ),
        *("--fkit", workers, SPAWN),
        env={"PYTHONHASHSEED": "7", "HASH_OF_TEXT": hashed.strip(), "PYTHONPATH": str(tmp_path)},
    )
    assert outcome.outcomes == {
        "b/test_it.py::test_it": "PASSED",
        "b/test_it.py::test_warns": "PASSED",
    }, outcome.out + outcome.err


DIFFERENT = """
    import os
    import pytest

    @pytest.mark.parametrize("number", [os.getpid(), 0])
    def test_it(number):
        pass
"""

IMPORTED_ONCE = """
    open("imported", "x").close()

    def test_it():
        pass
"""


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("workers", ["-n1", "-n0"], indirect=True)
def test_what_a_fresh_interpreter_did_not_collect_is_an_error_that_says_so(
    tmp_path: Path, workers: str
) -> None:
    outcome = run(
        tmp_path,
        {"test_different.py": DIFFERENT, "test_once.py": IMPORTED_ONCE},
        *("--fkit", workers, SPAWN, "-x", "--maxfail=9"),
    )
    assert len(outcome.verdicts) == 3
    texts = {
        nodeid: verdict.failures[0]["text"]
        for nodeid, verdict in outcome.verdicts.items()
        if verdict.failures
    }
    (absent,) = [nodeid for nodeid in texts if nodeid.startswith("test_different.py::test_it[")]
    assert absent != "test_different.py::test_it[0]"
    assert (
        "did not collect it, but 1 of the 2 tests that the worker collected there" in texts[absent]
    )
    assert "did not collect it, because of an error" in texts["test_once.py::test_it"]
    assert "FileExistsError" in texts["test_once.py::test_it"]
    assert len(texts) == 2


COUNTED = """
    import os, pathlib, time

    def imports():
        return pathlib.Path("imports").read_text().split()

    with open("imports", "a") as file:
        file.write(f"{os.getpid()}\\n")

    def wait_for_imports(number):
        deadline = time.monotonic() + 30
        while len(imports()) < number:
            assert time.monotonic() < deadline
            time.sleep(0.01)
"""


OUTSIDE = """
import os
import threading
import pytest

if "STARTS" in os.environ:
    threading.Thread(target=threading.Event().wait, daemon=True).start()

@pytest.fixture(scope="module")
def dies_in_one():
    if {name!r} == "one":
        os._exit(5)

def test_in_{name}(): pass
def test_in_both(): assert __name__ == "test_{name}"
def test_asks(dies_in_one): pass
def test_asks_again(dies_in_one): pass
"""


@pytest.mark.parametrize("env", [{}, {"STARTS": "1"}], ids=["forked", "fresh"])
def test_files_whose_tests_have_the_same_node_ids_are_told_apart(
    tmp_path: Path, env: dict[str, str]
) -> None:
    """As for files outside of the root directory that the command line names."""
    files = {f"out/test_{name}.py": OUTSIDE.format(name=name) for name in ("one", "two")}
    write_files(tmp_path, {**files, "in/pytest.ini": ""})
    given = [f"../out/test_{name}.py" for name in ("one", "two")]
    ended = run_pytest(tmp_path / "in", "--fkit", "-n0", "--rootdir=.", *given, env=env)
    found = sorted((outcome, nodeid) for outcome, nodeid, _ in ended.reported)
    assert found == [
        ("ERROR", "::test_asks"),
        ("ERROR", "::test_asks_again"),
        *[("PASSED", f"::test_{name}") for name in ("asks", "asks_again", "in_both", "in_both")],
        ("PASSED", "::test_in_one"),
        ("PASSED", "::test_in_two"),
    ], ended.out
    commands = [line for line in ended.lines if line.startswith("reproduce: ")]
    assert commands[0].endswith(" ../out/test_one.py::test_asks")


@pytest.mark.in_turn(2)
def test_a_crash_costs_no_start(tmp_path: Path, workers: str) -> None:
    test = f"""{COUNTED}
    def test_crash():
        wait_for_imports(3)  # the worker's, this one, and the spare's
        pathlib.Path("before").write_text(imports()[-1])
        os.abort()

    def test_takes_the_spare():
        assert pathlib.Path("before").read_text() == str(os.getpid())

    def test_goes_on_there():
        assert pathlib.Path("before").read_text() == str(os.getpid())
        assert len(imports()) <= 4  # one spare at a time
    """
    outcome = run(tmp_path, {"test_it.py": test}, "--fkit", workers, SPAWN)
    assert [each.outcome for each in outcome.verdicts.values()] == ["failed", "passed", "passed"]
    assert outcome.reports("test_crash").death["death"].startswith("SIGABRT")


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("workers", ["-n1", "-n0"], indirect=True)
def test_the_next_module_finds_its_interpreter_warm(tmp_path: Path, workers: str) -> None:
    first = """
    import pathlib, time

    def test_it():
        deadline = time.monotonic() + 30
        # Imported by the worker and by the spare.
        while len(pathlib.Path("imports").read_text().split()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    """
    second = f"""{COUNTED}
    def test_it():
        assert imports()[1:] == [str(os.getpid())]
    """
    outcome = run(tmp_path, {"test_a.py": first, "test_b.py": second}, "--fkit", workers, SPAWN)
    assert outcome.status == 0, outcome.stdout


def test_a_spare_that_dies_is_nobodys_error(tmp_path: Path) -> None:
    test = f"""{COUNTED}
    if len(imports()) == 3:
        os.abort()

    def test_crash():
        wait_for_imports(3)
        os.abort()

    def test_after():
        pass
    """
    outcome = run(tmp_path, {"test_it.py": test}, "--fkit", "-n1", SPAWN)
    assert [each.outcome for each in outcome.verdicts.values()] == ["failed", "passed"]


@pytest.mark.in_turn(2)
def test_an_import_that_ends_a_fresh_interpreter_is_one_error_for_each_test(
    tmp_path: Path, workers: str
) -> None:
    test = f"""{COUNTED}
    if len(imports()) > 1:
        print("about to end")
        os.abort()

    def test_1():
        pass

    def test_2():
        pass
    """
    outcome = run(
        tmp_path, {"test_it.py": test, "test_other.py": "def test_3(): pass"},
        *("--fkit", workers, SPAWN),
    )  # fmt: skip
    for name in ("test_1", "test_2"):
        death = outcome.reports(name).death
        assert death["death"].startswith("SIGABRT at test_it.py:"), death
        assert death["when"] == "setup"
        assert death["sections"]["Captured stdout setup"].strip() == "about to end"
    assert outcome.reports("test_3").outcome == "passed"


def test_a_hanging_test_is_ended_and_the_rest_goes_on(tmp_path: Path) -> None:
    test = """
    import pytest, threading

    @pytest.mark.fkit(timeout=0.5)
    def test_hangs():
        threading.Event().wait()

    def test_after():
        pass
    """
    outcome = run(tmp_path, {"test_it.py": test}, "--fkit", "-n0", SPAWN)
    assert outcome.reports("test_hangs").death["death"].startswith("timed out after 0.5 s")
    assert outcome.reports("test_after").outcome == "passed"


def test_session_hooks_of_fresh_interpreters_run_to_their_end(tmp_path: Path) -> None:
    conftest = """
    import os, sys, time

    def note(text):
        with open("hooks", "a") as file:
            file.write(f"{os.getpid()} {text}\\n")

    def pytest_sessionstart(session):
        note("begin")

    def pytest_sessionfinish(session):
        if hasattr(session.config, "workerinput"):
            time.sleep(1000 if "test_limited" in sys.modules else 2.5)
        note("end")
    """
    test = f"""{COUNTED}
    def test_1():
        wait_for_imports(3)

    def test_2():
        pass
    """
    limited = """
    import pytest
    pytestmark = pytest.mark.timeout(1.5)
    def test_3(): pass
    """
    files = {"conftest.py": conftest, "test_it.py": test, "test_limited.py": limited}
    outcome = run(tmp_path, files, "--fkit", "-n0", SPAWN)
    assert outcome.status == 0, outcome.stdout
    noted = [line.split() for line in (tmp_path / "hooks").read_text().splitlines()]
    begun = [pid for pid, text in noted if text == "begin"]
    # The spares are ended in order if they had come so far.
    ended = {pid for pid, text in noted if text == "end"}
    assert set(begun[:2]) <= ended  # pytest, the interpreter; then its spare and the next one's
    assert "of which pytest's session went on after 2 s" in outcome.stdout
    assert "1 test left processes running" in outcome.stdout


def test_stopping_after_a_failure_ends_the_spare(tmp_path: Path) -> None:
    test = "def test_1(): assert 0\n\ndef test_2(): pass\n"
    outcome = run(tmp_path, {"test_it.py": test}, "--fkit", "-n1", "-x", SPAWN)
    assert [each.outcome for each in outcome.verdicts.values()] == ["failed"]


def test_fixtures_marks_and_duplicates(tmp_path: Path) -> None:
    test = """
    import pytest

    @pytest.fixture(scope="module", params=["x", "y"])
    def wide(request):
        print("set up", request.param)
        yield request.param
        print("tear down", request.param)

    def test_1(wide):
        pass

    @pytest.mark.skip
    def test_2(wide):
        pass

    @pytest.mark.xfail
    def test_3(wide):
        assert 0
    """
    write_files(tmp_path, {"test_it.py": test.replace("\n    ", "\n")})
    arguments = ("--keep-duplicates", "test_it.py", "test_it.py", "-k", "x")
    plain = run_pytest(tmp_path, *arguments)
    isolated = run_pytest(tmp_path, *arguments, "--fkit", "-n0", SPAWN)
    assert sorted(isolated.reported) == sorted(plain.reported)
    assert len(plain.reported) >= 3


COVERED = """
def covered(number):
    if number == 1:
        return "one"
    if number == 2:
        return "two"
    return "other"
"""


def test_lines_run_in_fresh_interpreters_are_covered(tmp_path: Path, workers: str) -> None:
    pytest.importorskip("pytest_cov")
    write_files(
        tmp_path,
        {
            "covered.py": COVERED,
            "test_a.py": "import covered\ndef test_1(): covered.covered(1)\n",
            "test_b.py": "import covered\ndef test_2(): covered.covered(2)\n",
        },
    )
    measure = ("-p", "pytest_cov", "--cov=covered", "--cov-report=term-missing")
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(tmp_path)}
    arguments = ("-p", "xdist", "-p", "fkit", "--fkit", workers, SPAWN, *measure)
    outcome = run_pytest(tmp_path, *arguments, env=environment)
    assert outcome.status == 0, outcome.out + outcome.err
    (line,) = (each.split() for each in outcome.lines if each.startswith("covered.py"))
    assert line[-1] == "7"  # the one line that nobody ran
