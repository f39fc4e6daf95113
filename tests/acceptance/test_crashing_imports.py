"""A module whose import ends the process is one ERROR; everything else runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from inner import InnerRun, run_pytest, write_files

CRASHES = {
    "test_segv.py": (
        "import os\n\ndef crash():\n    os.kill(os.getpid(), 11)\n\ncrash()\ndef test_it(): pass\n",
        "SIGSEGV at test_segv.py:4 in crash",
    ),
    "test_fatal.py": (
        "import ctypes\nctypes.pythonapi.Py_FatalError(b'said by C')\n",
        "SIGABRT at test_fatal.py:2 in <module>",
    ),
    "test_kill.py": ("import os\nos.kill(os.getpid(), 9)\n", "SIGKILL"),
    "test_exit_0.py": ("import os\nprint('said before')\nos._exit(0)\n", "exit status 0"),
    "test_exit_3.py": ("import os\nos._exit(3)\n", "exit status 3"),
    "test_text.py": (
        "import os\nclass Odd(Exception):\n    def __str__(self): os._exit(5)\nraise Odd\n",
        "exit status 5",
    ),
    "test_sys_exit.py": (
        "import sys\ndef leave():\n    sys.exit(4)\nleave()\n",
        "SystemExit: 4 at test_sys_exit.py:3",
    ),
}
SOUND = {
    "test_aa.py": "def test_first(): pass\n",
    "test_import_error.py": "import does_not_exist\n",
    "test_zz.py": "import os\ndef test_dies(): os.abort()\ndef test_last(): pass\n",
}
CONFIGURATIONS = {
    "1": ("-n1", "--max-worker-restart=0"),
    "2": ("-n2", "--max-worker-restart=1"),
    "4": ("-n4", "--max-worker-restart=0"),
}


@pytest.fixture(scope="module", params=list(CONFIGURATIONS))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> InnerRun:
    texts = {name: text for name, (text, _) in CRASHES.items()}
    if request.param == "4":  # every worker imports everything: keep it small
        texts = {"test_segv.py": texts["test_segv.py"]}
    directory = write_files(tmp_path_factory.mktemp("imports"), {**texts, **SOUND})
    return run_pytest(directory, "--fkit", *CONFIGURATIONS[request.param])


def test_all_other_modules_run(run: InnerRun) -> None:
    outcomes = run.outcomes
    assert outcomes["test_aa.py::test_first"] == "PASSED"
    assert outcomes["test_zz.py::test_last"] == "PASSED"
    assert outcomes["test_zz.py::test_dies"] == "ERROR"
    assert run.status == 1


def test_each_is_one_error_that_says_how_and_where(run: InnerRun) -> None:
    reported = [(nodeid, text) for _, nodeid, text in run.reported if "::" not in nodeid]
    names = [nodeid for nodeid, _ in reported]
    assert len(set(names)) == len(names)
    crashed = {name: text for name, text in reported if name in CRASHES}
    assert crashed
    for name, text in crashed.items():
        assert text.partition(", importing ")[0] == CRASHES[name][1]
    missing = {path.split("::")[0] for path in run.outcomes} ^ {*crashed, *SOUND}
    assert not missing


def test_an_import_error_is_reported_as_by_xdist(run: InnerRun) -> None:
    assert run.outcomes["test_import_error.py"] == "ERROR"
    assert run.out.count("E   ModuleNotFoundError: No module named 'does_not_exist'") == 1


def test_no_restart_is_counted(run: InnerRun) -> None:
    assert "maximum crashed workers reached" not in run.out
    assert "worker restarting disabled" not in run.out


def test_the_report_shows_stack_and_output(run: InnerRun) -> None:
    assert "test_segv.py:4: in crash" in run.out
    if "test_exit_0.py" in run.outcomes:
        assert run.out.count("said before") == 1


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_sys_exit_alone_is_one_error(tmp_path: Path, workers: str) -> None:
    texts = {"test_a.py": "def test_it(): pass\n", "test_sys_exit.py": "import sys\nsys.exit()\n"}
    ended = run_pytest(
        write_files(tmp_path, texts), "--fkit", workers, "--continue-on-collection-errors"
    )
    assert ended.outcomes == {"test_a.py::test_it": "PASSED", "test_sys_exit.py": "ERROR"}
    assert "SystemExit: None at test_sys_exit.py:2" in ended.message("test_sys_exit.py")
    assert "INTERNALERROR" not in ended.out
    assert ended.status == 1


def test_a_hanging_import_is_one_error(tmp_path: Path) -> None:
    texts = {
        "quick.py": "import pytest_fkit.config.settings as settings\n"
        "settings.SHORTEST_START_LIMIT = 0.5\n",
        "test_a.py": "def test_it(): pass\n",
        "test_hang.py": "import threading\ndef hang():\n    threading.Event().wait()\nhang()\n",
    }
    ended = run_pytest(write_files(tmp_path, texts), "--fkit", "-p", "quick", "--fkit-timeout=0.5")
    assert ended.outcomes == {"test_a.py::test_it": "PASSED", "test_hang.py": "ERROR"}
    assert "timed out after 0.5 s at test_hang.py:3 in hang" in ended.message("test_hang.py")


CODE_AROUND = {
    "conftest below": {"sub/conftest.py": "import os\nos._exit(0)\n"},
    "conftest of workers": {
        "conftest.py": "import os\nif 'PYTEST_XDIST_WORKER' in os.environ: os._exit(0)\n"
    },
    "collection hook": {
        "conftest.py": "import os\n"
        "def pytest_collection_modifyitems(config):\n"
        "    if hasattr(config, 'workerinput'): os.kill(os.getpid(), 9)\n"
    },
}


@pytest.fixture(params=list(CODE_AROUND))
def fatal_suite(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    files = {"test_a.py": "def test_it(): pass\n", "sub/test_b.py": "def test_it(): pass\n"}
    return write_files(tmp_path, {**files, **CODE_AROUND[request.param]})


def test_code_that_kills_every_worker_ends_the_run(fatal_suite: Path) -> None:
    ended = run_pytest(fatal_suite, "--fkit", "-n1", "--max-worker-restart=0")
    assert ended.status not in (0, 5)
    assert "a conftest.py, a plugin or a collection hook ends the process" in ended.out
    assert "INTERNALERROR" not in ended.out
