"""Each process runs the exit handlers registered in it, once, and nobody else's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from inner_runs import Outcome, run

_SUITE = """
    import atexit, gc, multiprocessing, os, tempfile, weakref
    import multiprocessing.util
    from pathlib import Path
    import pytest

    DIRECTORY = Path(os.environ["FKIT_INNER_DIR"])

    def note(word):
        with open(DIRECTORY / "ran.txt", "a") as file:
            file.write(word + chr(10))

    class Thing:
        pass

    kept = []

    def register(prefix):
        atexit.register(note, prefix + "-atexit")
        thing = Thing()
        kept.append(thing)
        weakref.finalize(thing, note, prefix + "-finalize")
        multiprocessing.util.Finalize(None, note, (prefix + "-mp",), exitpriority=10)

    if os.environ.get("PYTEST_XDIST_WORKER"):
        register("import")
    imported_directory = tempfile.TemporaryDirectory(prefix="import-")

    @pytest.fixture(scope="session")
    def wide():
        register("session")
        directory = tempfile.TemporaryDirectory(prefix="session-")
        yield Path(directory.name)
        note("session-teardown")

    @pytest.fixture(scope="module")
    def imported():
        return Path(imported_directory.name)

    @pytest.mark.parametrize("number", range(3))
    def test_registers(wide, imported, number):
        assert wide.is_dir() and imported.is_dir()
        register("test")
        directory = tempfile.TemporaryDirectory(prefix="test-")
        kept.append(directory)

    @pytest.fixture(scope="module")
    def under_a_context_manager():
        with tempfile.TemporaryDirectory(prefix="with-") as path:
            try:
                yield Path(path)
            finally:
                note("finally")

    def test_under_a_context_manager(under_a_context_manager):
        gc.collect()
        assert under_a_context_manager.is_dir()

    def test_again_under_a_context_manager(under_a_context_manager):
        assert under_a_context_manager.is_dir()

    def test_dies(wide):
        register("dead")
        os.abort()

    def test_without_fixture():
        register("test")

    def test_runs_a_finalizer_itself():
        thing = Thing()
        weakref.finalize(thing, note, "early")
        del thing

    def test_raises_in_exit_handler():
        atexit.register(lambda: 1 / 0)
        register("test")

    def test_exits_in_exit_handler():
        atexit.register(os._exit, 7)

    def test_joins_a_process():
        process = multiprocessing.get_context("fork").Process(target=note, args=("process",))
        process.start()

    def test_replaces_what_the_end_reads():
        import multiprocessing.resource_tracker as trackers
        multiprocessing.util._exit_function = trackers._resource_tracker = None

    class TestReplaced:
        @pytest.fixture(scope="class", autouse=True)
        def replaced(self, monkeypatch_class):
            monkeypatch_class.setattr(weakref, "finalize", None)
            monkeypatch_class.setattr(multiprocessing.util, "_finalizer_registry", None)

        @pytest.fixture(scope="class")
        def monkeypatch_class(self):
            with pytest.MonkeyPatch.context() as patch:
                yield patch

        def test_in_a_fork_of_a_host_that_replaces_it(self):
            pass
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finalizers")


@pytest.fixture(scope="module")
def outcome(directory: Path) -> Outcome:
    return run(directory, {"test_f.py": _SUITE}, "--fkit", "-n1")


def test_every_process_runs_its_own_exit_handlers_once(outcome: Outcome, directory: Path) -> None:
    ran = Counter((directory / "ran.txt").read_text().split())
    assert ran == {
        **dict.fromkeys(("test-atexit", "test-finalize", "test-mp"), 5),
        **dict.fromkeys(("session-atexit", "session-finalize", "session-mp"), 1),
        **dict.fromkeys(("import-atexit", "import-finalize", "import-mp"), 1),
        "session-teardown": 1,
        "early": 1,
        "finally": 1,
        "process": 1,
    }


def test_temporary_directories_are_gone(outcome: Outcome, directory: Path) -> None:
    assert outcome.reports("test_registers[0]").outcome == "passed"
    assert [
        path.name for path in (directory / "tmp").iterdir() if "pytest-of" not in path.name
    ] == []


def test_exit_handler_that_raises_is_not_the_tests_failure(outcome: Outcome) -> None:
    assert outcome.reports("test_raises_in_exit_handler").outcome == "passed"


def test_exit_handler_that_ends_the_process_is_a_death(outcome: Outcome) -> None:
    death = outcome.reports("test_exits_in_exit_handler").death
    assert death["when"] == "teardown"
    assert death["death"] == "exit status 7 in an exit handler"


@pytest.mark.parametrize(
    "name",
    [
        "test_registers[2]", "test_without_fixture", "test_under_a_context_manager",
        "test_replaces_what_the_end_reads", "test_in_a_fork_of_a_host_that_replaces_it",
    ],
)  # fmt: skip
def test_others_pass(outcome: Outcome, name: str) -> None:
    assert outcome.reports(name).outcome == "passed"
