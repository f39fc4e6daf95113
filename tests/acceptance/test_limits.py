"""Under low limits all goes as in plain pytest, or ends in an error that names the limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from inner import InnerRun, run_pytest, write_files

from pytest_fkit import system

# RLIMIT_NPROC is none for root, nor for who may override limits, see setrlimit(2).
ORDINARY = """
import ctypes, os

def become_ordinary():
    if os.getuid() == 0:
        os.setresuid(65534, 0, 0)
        header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        libc = ctypes.CDLL(None)
        assert libc.capget(header, sets) == 0
        for number in (0, 1):
            sets[number] &= ~(1 << 21 | 1 << 24)  # CAP_SYS_ADMIN, CAP_SYS_RESOURCE
        assert libc.capset(header, sets) == 0
"""

SOFT = """
import resource, subprocess, sys
import pytest
from ordinary import become_ordinary

LIMITS = {
    "NOFILE": 9,
    "FSIZE": 100,
    "NPROC": 1,
    "CORE": 0,
}

@pytest.fixture(scope="module", autouse=True)
def lowered():
    if KIND == "NPROC":
        become_ordinary()
    kind = getattr(resource, "RLIMIT_" + KIND)
    old = resource.getrlimit(kind)
    resource.setrlimit(kind, (LIMITS[KIND], old[1]))
    yield
    resource.setrlimit(kind, old)

def soft():
    return resource.getrlimit(getattr(resource, "RLIMIT_" + KIND))[0]

def test_sees_it():
    assert soft() == LIMITS[KIND]

def test_fails():
    assert soft() != LIMITS[KIND]

def test_sees_it_again():
    assert soft() == LIMITS[KIND]
"""

KINDS = ("NOFILE", "FSIZE", "NPROC", "CORE")
MODES = (("-n2",), ("-n0",), ("-n2", "--fkit-isolation=session"))


def soft_suite(directory: Path) -> Path:
    files = {f"test_{kind.lower()}.py": f"KIND = {kind!r}\n{SOFT}" for kind in KINDS}
    return write_files(directory, {"ordinary.py": ORDINARY, **files})


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_a_soft_limit_that_a_wide_fixture_lowers_is_no_trouble(
    tmp_path: Path, mode: tuple[str, ...]
) -> None:
    ended = run_pytest(soft_suite(tmp_path), "--fkit", "--fkit-start-method=fork", *mode)
    wanted = {
        f"test_{kind.lower()}.py::{name}": outcome
        for kind in KINDS
        for name, outcome in (
            ("test_sees_it", "PASSED"),
            ("test_fails", "FAILED"),
            ("test_sees_it_again", "PASSED"),
        )
    }
    assert ended.outcomes == wanted, ended.out
    assert ended.status == 1


HARD = """
import resource, time
import pytest
from ordinary import become_ordinary

@pytest.fixture(scope="module")
def lowered():
    if KIND == "NPROC":
        become_ordinary()
    limit = {"NOFILE": 100, "FSIZE": 0, "NPROC": 1}[KIND]
    resource.setrlimit(getattr(resource, "RLIMIT_" + KIND), (limit, limit))

def test_before(): pass
def test_one(lowered): pass
def test_two(lowered): pass
def test_after(): pass
"""

HOOK = """
import sys
EVENT = {event!r}
def forbid(event, args):
    if event == EVENT:
        raise ValueError("of the suite")
"""

EVENTS = {"os.fork": True, "os.truncate": True, "os.kill": False, "ctypes.cdata": False}
"""Of audit hooks: what a host does between tests, and whether it can't fork without."""

FORBIDDEN = f"""
import pytest
{HOOK}
@pytest.fixture(scope="module")
def lowered():
    sys.addaudithook(forbid)

def test_before(): pass
def test_one(lowered): pass
def test_two(lowered): assert 0
def test_after(): pass
"""

NAMES = {"NOFILE": "ulimit -n 1024", "FSIZE": "ulimit -f unlimited", "NPROC": "ulimit -u unlimited"}


@pytest.mark.parametrize("workers", ["-n2", "-n0"])
def test_a_hard_limit_costs_no_other_test_and_is_named(tmp_path: Path, workers: str) -> None:
    files = {f"test_{kind.lower()}.py": f"KIND = {kind!r}\n{HARD}" for kind in NAMES}
    hooks = {f"test_hook_{event.replace('.', '_')}.py": event for event in EVENTS}
    files.update((file, FORBIDDEN.format(event=event)) for file, event in hooks.items())
    suite = write_files(tmp_path, {"ordinary.py": ORDINARY, **files})
    ended = run_pytest(suite, "--fkit", "--fkit-start-method=fork", workers)
    for kind, command in NAMES.items():
        file = f"test_{kind.lower()}.py"
        for name in ("test_one", "test_two"):
            assert ended.outcomes[f"{file}::{name}"] == "ERROR", ended.out
            message = ended.message(f"{file}::{name}")
            assert f"RLIMIT_{kind}; `{command}` raises it" in message, ended.out
        assert ended.outcomes[f"{file}::test_before"] == "PASSED"
        assert ended.outcomes[f"{file}::test_after"] == "PASSED", ended.out
    assert ended.status == 1
    lines = [line for line in ended.lines if "shared a process" in line]
    for file, event in hooks.items():
        outcomes = [ended.outcomes[f"{file}::test_{name}"] for name in ("one", "two", "after")]
        assert outcomes == ["PASSED", "FAILED", "PASSED"], ended.out
        causes = [line for line in lines if file in line]
        assert len(causes) == EVENTS[event], ended.out
        for cause in causes:
            assert cause.startswith("3 tests ") or workers == "-n2"
            assert cause.endswith("audit hook forbids forks: ValueError: of the suite")
    assert "Exception ignored" not in ended.out


BROKEN = """
import ctypes, os, resource, signal, sys
import pytest

def unlimited_size():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

BREAKS = {{
    "descriptors": lambda: os.closerange(3, 256),
    "stdout": lambda: sys.stdout.close(),
    "size": unlimited_size,
    "namespace": lambda: ctypes.CDLL(None).unshare(0x20000000),  # CLONE_NEWPID
}}

@pytest.fixture(scope="module")
def broken():
    BREAKS[{kind!r}]()

def test_before(): pass
def test_one(broken): pass
def test_two(broken): pass
def test_after(): pass
"""


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("workers", ["-n1", "-n0"])
def test_what_a_wide_fixture_breaks_costs_no_test_of_another(tmp_path: Path, workers: str) -> None:
    kinds = ("descriptors", "stdout", "size", *(["namespace"] if os.geteuid() == 0 else []))
    files = {f"test_{kind}.py": BROKEN.format(kind=kind) for kind in kinds}
    ended = run_pytest(write_files(tmp_path, files), "--fkit", workers)
    for kind in kinds:
        with_it = "PASSED" if kind == "namespace" else "ERROR"  # there they share a process
        names = {"before": "PASSED", "one": with_it, "two": with_it, "after": "PASSED"}
        for name, outcome in names.items():
            nodeid = f"test_{kind}.py::test_{name}"
            # pytest reports setup and teardown where it can't read what it captures.
            assert {word for word, found, _ in ended.reported if found == nodeid} == {outcome}
    size = ended.message("test_size.py::test_one")
    assert "exited with status 87 (its hard limit on the size of files" in size
    assert ended.status == 1


def test_what_a_process_holds_cannot_be_found_out(tmp_path: Path) -> None:
    suite = write_files(tmp_path, {"test_it.py": FORBIDDEN.format(event="os.listdir")})
    ended = run_pytest(suite, "--fkit", "-n0")
    assert list(ended.outcomes.values()).count("PASSED") == 3, ended.out
    assert ended.outcomes["test_it.py::test_two"] == "FAILED", ended.out
    [line] = [line for line in ended.lines if "shared a process" in line]
    assert line.endswith("audit hook forbids forks: ValueError: of the suite")


def test_no_process_can_be_made_at_all(tmp_path: Path) -> None:
    conftest = f"{HOOK.format(event='os.fork')}\nsys.addaudithook(forbid)"
    suite = write_files(tmp_path, {"conftest.py": conftest, "test_it.py": "def test_it(): pass"})
    ended = run_pytest(suite, "--fkit", "-n0")
    assert "audit hook forbids forks: ValueError: of the suite" in ended.message(
        "test_it.py::test_it"
    )
    assert ended.status == 1


CONFTEST = """
import resource

LOWERED = {resource.RLIMIT_NOFILE: 200, resource.RLIMIT_FSIZE: 3000}
for kind, soft in LOWERED.items():
    resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))
"""

UNDER_CONFTEST = """
import resource, subprocess, sys
import pytest
from conftest import LOWERED

def test_sees_it():
    assert {kind: resource.getrlimit(kind)[0] for kind in LOWERED} == LOWERED

@pytest.mark.parametrize("kind", LOWERED)
def test_children_see_it(kind):
    program = f"import resource; print(resource.getrlimit({kind})[0])"
    assert int(subprocess.check_output([sys.executable, "-c", program])) == LOWERED[kind]

@pytest.mark.fkit_skip
def test_shares_a_process():
    test_sees_it()

def test_fails():
    assert 0
"""


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("mode", [*MODES, ("-n0", "--fkit-start-method=spawn")], ids=" ".join)
def test_soft_limits_that_a_conftest_lowers_are_no_trouble(
    tmp_path: Path, mode: tuple[str, ...]
) -> None:
    suite = write_files(tmp_path, {"conftest.py": CONFTEST, "test_it.py": UNDER_CONFTEST})
    journal = tmp_path / "journal"
    ended = run_pytest(
        suite, "--fkit", "-p", "no:cacheprovider", f"--fkit-journal={journal}", *mode
    )
    assert len(ended.outcomes) == 5
    assert [nodeid for nodeid, outcome in ended.outcomes.items() if outcome != "PASSED"] == [
        "test_it.py::test_fails"
    ], ended.out
    assert '"end"' in journal.read_text()


PLAIN = """
import os, time
import pytest

@pytest.fixture(scope="module")
def wide(): return os.getpid()

@pytest.mark.fkit_skip
def test_shared(): pass

class TestClass:
    @pytest.mark.fkit(isolation="class")
    def test_one(self, wide): pass
    @pytest.mark.fkit(isolation="class")
    def test_two(self): pass

def test_three(wide): assert os.dup(0) < 40

def test_dies(): os.abort()

def test_uses_all_descriptors_and_passes():
    copies = []
    with pytest.raises(OSError):
        while True: copies.append(os.dup(0))
    for copy in copies:  # others may run in this process
        os.close(copy)
"""


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("ulimit", ["-n 256", "-Sn 1024"])
@pytest.mark.parametrize(
    "mode",
    [
        ("-n8",),
        ("-n0",),
        ("-n2", "--fkit-isolation=session"),
        ("-n2", "--fkit-start-method=spawn"),
    ],
    ids=" ".join,
)
def test_low_limits_on_open_files_are_enough(
    tmp_path: Path, mode: tuple[str, ...], ulimit: str
) -> None:
    files = {f"test_{name}.py": PLAIN for name in "ab"}
    ended = run_pytest(write_files(tmp_path, files), "--fkit", *mode, ulimit=ulimit)
    bad = {nodeid for nodeid, outcome in ended.outcomes.items() if outcome != "PASSED"}
    assert bad == {f"test_{name}.py::test_dies" for name in "ab"}, ended.out
    assert len(ended.outcomes) == 12
    assert "SIGABRT" in ended.message("test_a.py::test_dies")


# --- output that nobody limits ---

OUTPUT = """
import time
import pytest

def lines(number):
    print("the first line")
    for _ in range(number):
        print(("x" * 99 + "\\n") * 1000, end="")
    print("the last line")

def test_fails():
    lines(400)
    assert 0

def test_passes():
    lines(400)

def test_gets_all_of_it(capfd):
    lines(400)
    assert len(capfd.readouterr().out) == 40_000_000 + 29

@pytest.mark.fkit(timeout=5)
def test_never_ends():
    lines(400)
    while True:
        print("and so on")
        time.sleep(0.01)

def test_after(): pass
"""


def captured(ended: InnerRun, name: str) -> str:
    """What the terminal shows of a test's output."""
    part = ended.out.partition(f" {name} ___")[2]
    text = part.partition("- Captured stdout call -")[2].partition("\n")[2]
    return text.partition("\n___")[0].partition("\n===")[0]


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("mode", [MODES[0], ("-n0", "--capture=sys")], ids=" ".join)
def test_both_ends_of_much_output_are_reported(tmp_path: Path, mode: tuple[str, ...]) -> None:
    suite = write_files(tmp_path, {"test_it.py": OUTPUT})
    ended = run_pytest(suite, "--fkit", *mode)
    outcomes = {nodeid.partition("::")[2]: outcome for nodeid, outcome in ended.outcomes.items()}
    never = outcomes.pop("test_never_ends")
    assert never == "ERROR"
    assert "timed out" in ended.message("test_it.py::test_never_ends")
    assert outcomes == {
        "test_fails": "FAILED",
        "test_passes": "PASSED",
        "test_gets_all_of_it": "PASSED",
        "test_after": "PASSED",
    }
    for name in ("test_fails", "test_passes"):
        text = captured(ended, name)
        assert text.startswith("the first line\n"), text[:200]
        assert text.count(" of output left out here …") == 1
        assert text.rstrip().endswith("the last line")
        assert 33_000_000 < len(text) < 34_000_000
    assert "of output left out here" in captured(ended, "test_never_ends")


@pytest.mark.skipif(system.PORTABLE, reason="files are on a disk there")
def test_memory_is_not_filled_by_output(tmp_path: Path) -> None:
    text = """
    import os, pathlib, time

    def kept():
        numbers = (int(name) for name in os.listdir("/proc/self/fd"))
        files = {}
        for number in numbers:
            path = f"/proc/self/fd/{number}"
            try:
                if "fkit-out" in os.readlink(path):
                    status = os.stat(path)
                    files[status.st_ino] = status.st_blocks * 512
            except OSError:
                continue
        return sum(files.values())

    def test_it():
        for _ in range(40):
            os.write(1, b"x" * (1 << 20))
        deadline = time.monotonic() + 30
        while kept() > 33 << 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert kept() <= 33 << 20
    """
    import textwrap

    suite = write_files(tmp_path, {"test_it.py": textwrap.dedent(text)})
    ended = run_pytest(suite, "--fkit", "-n0")
    assert ended.outcomes == {"test_it.py::test_it": "PASSED"}, ended.out[-3000:]
