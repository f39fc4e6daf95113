"""What each process of a run imports: nothing that it has no use for, and nothing once per test."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Callable

import pytest
from inner import run_pytest, write_files

from fleet import nvidia
from pytest_fkit.system import PORTABLE

_ALWAYS = {
    "pytest_fkit", "pytest_fkit.config", "pytest_fkit.config.declaration",
    "pytest_fkit.config.options", "pytest_fkit.config.others_options", "pytest_fkit.fixtures",
    "pytest_fkit.hookspecs",
    "pytest_fkit.config.first_environment", "pytest_fkit.plugin",
}  # fmt: skip
"""What every pytest pays for that finds the package installed."""

_FOR_OWNERS_OF_GPUS = (
    "pytest_fkit.gpu.errors.classification", "pytest_fkit.gpu.errors.error_table",
    "pytest_fkit.gpu.errors.scarcity", "pytest_fkit.gpu.health.probe",
    "pytest_fkit.gpu.slices.distribution", "pytest_fkit.gpu.slices.environment",
    "pytest_fkit.gpu.vendors",
    "pytest_fkit.sandbox.process.gpu_failures",
    "pytest_fkit.worker.probing",
)  # fmt: skip
_NOT_IN_A_WORKER = (
    "pytest_fkit.controller", "pytest_fkit.journal", *_FOR_OWNERS_OF_GPUS,
    *(() if PORTABLE else ("psutil",)),
)  # fmt: skip
_NOT_IN_A_CONTROLLER = ("pytest_fkit.sandbox", "pytest_fkit.worker", "pytest_fkit.journal")

# Notes, by process and moment, the names of the modules that are imported.
_CONFTEST = """
import os, sys
import pytest

def note(config, moment):
    role = "worker" if hasattr(config, "workerinput") else "controller"
    with open(f"{moment}-{role}-{os.getpid()}.modules", "w") as file:
        file.write("\\n".join(sorted(sys.modules)))

@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    note(session.config, "collected")

def pytest_unconfigure(config):
    note(config, "end")
    rewritten = [
        name for name, module in sys.modules.items()
        if type(getattr(module, "__loader__", None)).__name__ == "AssertionRewritingHook"
    ]
    with open(f"{os.getpid()}.rewritten", "w") as file:
        file.write("\\n".join(rewritten))

@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    note(item.config, f"before-{item.name}")
    yield
    note(item.config, f"after-{item.name}")
"""

_TESTS = """
import os, time
import pytest

@pytest.fixture(scope="module")
def wide():
    yield 1

@pytest.mark.parametrize("number", range(14))
def test_passes(number, wide):
    pass

def test_fails(wide):
    assert [1, 2] == [1, 3]

def test_skips():
    pytest.skip("no reason")

@pytest.mark.xfail
def test_is_expected_to_fail():
    assert False

def test_measures(fkit_metrics):
    fkit_metrics["seconds"] = 1.5

def test_dies():
    os.abort()

def test_hangs(wide):
    time.sleep(60)

def test_passes_afterwards(wide):
    pass
"""


def _modules(directory: Path, moment: str, role: str) -> list[set[str]]:
    """What the processes of that role had imported at that moment."""
    files = directory.glob(f"{moment}-{role}-*.modules")
    return [set(file.read_text().splitlines()) for file in files]


def _below(modules: set[str], *packages: str) -> set[str]:
    return {
        name for name in modules for each in packages if name == each or name.startswith(f"{each}.")
    }


@pytest.fixture
def suite_that_notes(tmp_path: Path) -> Path:
    return write_files(tmp_path, {"conftest.py": _CONFTEST, "test_it.py": _TESTS})


@pytest.mark.parametrize("arguments", [("-n0",), ("-n1",), ("-p", "no:xdist")])
def test_without_the_option_next_to_nothing_is_imported(
    suite_that_notes: Path, arguments: tuple[str, ...]
) -> None:
    run_pytest(suite_that_notes, "-k", "passes", *arguments)
    found = _modules(suite_that_notes, "end", "*")
    assert len(found) == (2 if "-n1" in arguments else 1)
    assert _below(set().union(*found), "pytest_fkit") == _ALWAYS


# Of a host that ran tests itself and died, another host shows what their keeper has imported.
@pytest.fixture(scope="module", params=[(), ("--fkit-isolation=session",)])
def noted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the notes are of tests that end in every way."""
    files = {"conftest.py": _CONFTEST, "test_it.py": _TESTS}
    directory = write_files(tmp_path_factory.mktemp("noted"), files)
    run = run_pytest(directory, "--fkit", "--fkit-timeout=1", *request.param)
    outcomes = Counter(run.outcomes.values())
    assert outcomes == {"PASSED": 16, "FAILED": 1, "ERROR": 2, "XFAIL": 1}, run.out
    return directory


def test_a_controller_imports_nothing_of_a_worker(noted: Path) -> None:
    [controller] = _modules(noted, "end", "controller")
    assert _below(controller, "pytest_fkit.controller")
    assert _below(controller, *_NOT_IN_A_CONTROLLER) == set()


def test_only_what_every_pytest_imports_is_rewritten_by_it(noted: Path) -> None:
    found = [set(file.read_text().splitlines()) for file in noted.glob("*.rewritten")]
    assert len(found) == 2
    for process in found:
        assert _below(process, "pytest_fkit") - _ALWAYS == {
            "pytest_fkit.importing",
            "pytest_fkit.own",
        }


def test_a_worker_imports_nothing_of_a_controller(noted: Path) -> None:
    [worker] = _modules(noted, "end", "worker")
    assert _below(worker, "pytest_fkit.sandbox")
    assert _below(worker, *_NOT_IN_A_WORKER) == set()


def test_nothing_of_ours_is_imported_for_a_test(noted: Path) -> None:
    [collected] = _modules(noted, "collected", "worker")
    ended = _modules(noted, "after-*", "worker")
    assert len(ended) == 19
    for process in (*ended, *_modules(noted, "end", "worker")):
        assert _below(process - collected, "pytest_fkit") == set()


def test_what_records_is_not_imported_by_workers(suite_that_notes: Path) -> None:
    run_pytest(suite_that_notes, "--fkit", "--fkit-journal=journal", "-k", "passes or fails")
    [controller] = _modules(suite_that_notes, "end", "controller")
    assert _below(controller, "pytest_fkit.journal")
    [worker] = _modules(suite_that_notes, "end", "worker")
    assert _below(worker, *_NOT_IN_A_WORKER) == set()


def test_nothing_at_all_is_imported_for_a_test_that_passes(suite_that_notes: Path) -> None:
    run_pytest(suite_that_notes, "--fkit", "-k", "test_passes")
    [collected] = _modules(suite_that_notes, "collected", "worker")
    ended = _modules(suite_that_notes, "after-test_passes*", "worker")
    assert len(ended) == 15
    for test_process in ended:
        assert test_process - collected == set()


def test_nothing_is_imported_for_a_test_on_a_worker_with_gpus(
    suite_that_notes: Path, fleet: Callable[..., dict[str, str]]
) -> None:
    run_pytest(suite_that_notes, "--fkit", "-k", "passes or fails or skips", env=fleet(nvidia(2)))
    [worker] = _modules(suite_that_notes, "collected", "worker")
    assert _below(worker, "pytest_fkit.gpu.health.probe")
    assert _below(worker, "pytest_fkit.controller", "pytest_fkit.journal") == set()
    begun, *_ = _modules(suite_that_notes, "before-*", "worker")
    ended = _modules(suite_that_notes, "after-*", "worker")
    assert len(ended) == 17
    for test_process in ended:
        assert _below(test_process - begun, "pytest_fkit") == set()


def test_a_fresh_interpreter_imports_what_a_worker_does(suite_that_notes: Path) -> None:
    run_pytest(suite_that_notes, "--fkit", "--fkit-start-method=spawn", "-k", "passes")
    ended = _modules(suite_that_notes, "after-*", "worker")
    assert ended
    for test_process in ended:
        assert _below(test_process, *_NOT_IN_A_WORKER) == set()


@pytest.mark.parametrize("arguments", ["-n0", "-n1"])
def test_modules_beside_a_conftest_are_not_taken_for_others(tmp_path: Path, arguments: str) -> None:
    names = ("mmap", "pickle", "psutil", "resource")
    files = {f"suite/{name}.py": "raise ImportError('not this one')\n" for name in names}
    files.update({"suite/conftest.py": "", "suite/test_it.py": "def test_passes(): pass\n"})
    write_files(tmp_path, files)
    run = run_pytest(tmp_path, "--fkit", "--fkit-journal=journal", "suite", arguments)
    assert run.outcomes == {"suite/test_it.py::test_passes": "PASSED"}, run.out + run.err
