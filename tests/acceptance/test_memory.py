"""The memory limit counts what a test and all that it started took for themselves."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from inner_runs import Outcome, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts what Linux's /proc tells")

_SUITE = """
    import ctypes, mmap, os, signal, subprocess, sys, time
    import pytest

    heap = bytearray(os.urandom(1 << 20) * 300)  # more than the limit, before any test began

    TAKE = "import time; taken = b'x' * (40 << 20); print('there', flush=True); time.sleep(1000)"

    def test_takes_too_much():
        print("said before")
        taken = []
        while True:
            taken.append(b"x" * (1 << 20))
            time.sleep(0.001)

    def test_its_programs_take_too_much():
        programs = [
            subprocess.Popen([sys.executable, "-c", TAKE], stdout=subprocess.PIPE) for _ in range(4)
        ]
        time.sleep(1000)

    def test_its_copies_take_too_much():
        for _ in range(4):
            if os.fork() == 0:
                taken = b"x" * (40 << 20)
                time.sleep(1000)
        time.sleep(1000)

    def test_shared_memory_counts():
        taken = mmap.mmap(-1, 200 << 20)
        taken.write(b"x" * (200 << 20))
        time.sleep(1000)

    def test_has_room():
        taken = b"x" * (60 << 20)
        time.sleep(0.1)

    def test_inherited_heap_is_free():
        for position in range(0, len(heap), 4096):
            assert heap[position] >= 0
        time.sleep(0.1)

    def test_copies_share_the_heap():
        copies = []
        for _ in range(4):
            pid = os.fork()
            if pid == 0:
                time.sleep(0.2)
                os._exit(0)
            copies.append(pid)
        for pid in copies:
            os.waitpid(pid, 0)

    def test_address_space_is_free():
        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        none, private_anonymous_noreserve = 0, 0x4022
        address = libc.mmap(
            None, ctypes.c_size_t(1 << 40), none, private_anonymous_noreserve, -1, 0
        )
        assert address not in (None, ctypes.c_void_p(-1).value)
        time.sleep(0.1)

    @pytest.mark.fkit(memory_limit="20M")
    def test_limit_by_mark():
        taken = b"x" * (40 << 20)
        time.sleep(1000)

    @pytest.mark.fkit(memory_limit=0)
    def test_no_limit_by_mark():
        taken = b"x" * (150 << 20)
        time.sleep(0.1)

    def test_after_all():
        pass

    def score(pid):
        with open(f"/proc/{pid}/oom_score_adj") as file:
            return int(file.read())

    def test_is_offered_before_its_host_and_keeper():
        host = os.getppid()
        with open(f"/proc/{host}/stat") as file:
            keeper = int(file.read().rpartition(") ")[2].split()[1])
        assert score(os.getpid()) > score(host)
        assert score(os.getpid()) > score(keeper)

    def test_killed_by_itself():
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(
        tmp_path_factory.mktemp("memory"),
        {"test_m.py": _SUITE},
        *("--fkit", "-n1", "--fkit-memory-limit=100M", "--fkit-timeout=20"),
    )


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("test_takes_too_much", 100),
        ("test_its_programs_take_too_much", 100),
        ("test_its_copies_take_too_much", 100),
        ("test_shared_memory_counts", 100),
        ("test_limit_by_mark", 20),
    ],
)
def test_exceeding_the_limit_is_a_death_that_says_limit_and_peak(
    outcome: Outcome, name: str, limit: int
) -> None:
    death = outcome.reports(name).death
    assert death["when"] == "call"
    match = re.match(rf"memory limit {limit} MiB exceeded \(([\d.]+) MiB\)", death["death"])
    assert match is not None, death["death"]
    assert limit <= float(match[1]) < limit + 130
    assert f"in {name}" in death["text"]


@pytest.mark.parametrize(
    "name",
    [
        "test_has_room",
        "test_inherited_heap_is_free",
        "test_copies_share_the_heap",
        "test_address_space_is_free",
        "test_no_limit_by_mark",
        "test_after_all",
        "test_is_offered_before_its_host_and_keeper",
    ],
)
def test_what_a_test_did_not_take_does_not_count(outcome: Outcome, name: str) -> None:
    assert outcome.reports(name).outcome == "passed"


def test_output_before_the_limit_is_kept(outcome: Outcome) -> None:
    death = outcome.reports("test_takes_too_much").death
    assert death["sections"]["Captured stdout call"] == "said before\n"


def test_sigkill_is_not_blamed_on_memory_without_evidence(outcome: Outcome) -> None:
    death = outcome.reports("test_killed_by_itself").death
    assert death["death"] == "SIGKILL"
    assert "of memory" not in death["text"]


def test_limit_from_ini(tmp_path: Path) -> None:
    files = {
        "test_m.py": """
            import time

            def test_takes_too_much():
                taken = b"x" * (40 << 20)
                time.sleep(1000)
        """,
        "pytest.ini": "[pytest]\nfkit_memory_limit = 20M\nfkit_timeout = 20\n",
    }
    outcome = run(tmp_path, files, "--fkit", "-n0")
    death = outcome.reports("test_takes_too_much").death["death"]
    assert death.startswith("memory limit 20 MiB exceeded (")
