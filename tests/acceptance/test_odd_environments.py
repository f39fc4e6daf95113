"""What a suite or a command line takes away is missed by nobody: outcomes are plain pytest's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from comparing import MODES, MakeSuite
from inner import command, environment, run_to_its_end, write_files

SUITE = """
import os, sys
import pytest

@pytest.fixture(scope="module")
def wide():
    print("set up")
    yield 1
    print("torn down")

def test_passes(wide): print("text")
def test_fails(wide): assert wide == 2
def test_exits(): sys.exit(3)
def test_other(wide): assert wide == 1
@pytest.fixture
def broken(): raise ValueError
def test_needs_what_is_broken(broken): pass
"""

CLEARED = """
import os
kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
os.environ.clear()
os.environ.update(kept)
"""

# Of each kind that pytest itself survives.
STREAMS = {
    "that only write": "class Stream:\n    def write(self, text): return len(text)\n",
    "of which nothing but writing works": (
        "class Stream:\n"
        "    def write(self, text): return len(text)\n"
        "    def __getattr__(self, name): raise RuntimeError(name)\n"
    ),
    "that are None": "def Stream(): return None\n",
    "that are closed": "import io\ndef Stream():\n    new = io.StringIO()\n    new.close()\n"
    "    new.write = len\n    return new\n",
}
REPLACED = """
import sys
def pytest_collection_finish():
    sys.stdout, sys.stderr = Stream(), Stream()
def pytest_unconfigure():
    # Python flushes them at its end, and exits with status 120 where that fails.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
"""

# Together: those that have nothing to do with each other.
BLOCKED = (
    "capture", "terminal", "logging junitxml", "cacheprovider faulthandler", "warnings tmpdir",
    "skipping assertion", "unraisableexception threadexception stepwise subtests",
    "debugging unittest legacypath monkeypatch recwarn pastebin doctest setuponly setupplan",
)  # fmt: skip


def _mode(number: int) -> str:
    """One for each case: each kind has cases in all of them."""
    return list(MODES)[number % len(MODES)]


def test_a_conftest_that_clears_the_environment(suite: MakeSuite) -> None:
    suite(conftest=CLEARED, test_it=SUITE).compare()


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("arguments", ["-s", ""])
@pytest.mark.parametrize("kind", STREAMS)
def test_standard_streams(suite: MakeSuite, kind: str, arguments: str) -> None:
    conftest = STREAMS[kind] + REPLACED
    mode = _mode(list(STREAMS).index(kind) + len(arguments))
    suite(conftest=conftest, test_it=SUITE).compare(*arguments.split(), modes=[mode])


@pytest.mark.parametrize("names", BLOCKED)
def test_plugins_of_pytest_that_are_blocked(suite: MakeSuite, names: str) -> None:
    blocked = [part for name in names.split() for part in ("-p", f"no:{name}")]
    suite(test_it=SUITE).compare(*blocked, modes=[_mode(BLOCKED.index(names))])


def test_deaths_are_not_expected_where_no_plugin_knows_xfail(suite: MakeSuite) -> None:
    source = """
        import os, pytest
        @pytest.mark.xfail
        def test_dies(): os._exit(3)
    """
    run = suite(test_it=source).run("--fkit", "-n0", "-p", "no:skipping")
    assert (run.status, run.counts()["call failed"]) == (1, 1), run.text


def test_all_of_them_at_once(suite: MakeSuite) -> None:
    blocked = [part for name in " ".join(BLOCKED).split() for part in ("-p", f"no:{name}")]
    suite(conftest=CLEARED + STREAMS["that are None"] + REPLACED, test_it=SUITE).compare(*blocked)


_WITHOUT_PROC = ["unshare", "-Urm", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_without_proc_the_run_does_not_begin(tmp_path: Path, workers: str) -> None:
    if shutil.which("unshare") is None or subprocess.run([*_WITHOUT_PROC, "true"]).returncode:
        pytest.skip("nothing may be mounted here")
    write_files(tmp_path, {"test_it.py": "def test_it(): pass\n"})
    started = [*_WITHOUT_PROC, *command("--fkit", workers)]
    ended = run_to_its_end(started, tmp_path, environment(), timeout=120)
    assert ended.status == pytest.ExitCode.USAGE_ERROR
    assert ended.err.startswith("ERROR: pytest-fkit: /proc is not mounted")
    assert "Traceback" not in ended.out + ended.err


@pytest.mark.parametrize("mode", ["n0", "n2", "session"])
def test_gevent_that_reaps_children_itself(suite: MakeSuite, mode: str) -> None:
    pytest.importorskip("gevent")
    conftest = "from gevent import monkey\nmonkey.patch_all()\n"
    suite(conftest=conftest, test_it=SUITE).compare(modes=[mode])
