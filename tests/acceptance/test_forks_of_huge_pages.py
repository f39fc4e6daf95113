"""Workers make their memory huge pages where that pays, so that forks take less time."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
from inner import run_pytest, write_files

from pytest_fkit.system.pages import COLLAPSE_PAYS_FROM, collapse

_SUITE = """\
import mmap
from pathlib import Path
import pytest

MEMORY = mmap.mmap(-1, 1 << 24, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
MEMORY[:] = b"x" * len(MEMORY)
# All of it is read in pieces: copies as large as this are memory that the system has to clear.
PIECE = b"x" * (1 << 16)

@pytest.mark.parametrize("number", range(NUMBER))
def test_it(number):
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    huge = next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages:"))
    assert (huge >= 1 << 13) is (NUMBER >= FROM)
    for at in range(0, len(MEMORY), len(PIECE)):
        assert MEMORY[at : at + len(PIECE)] == PIECE
"""


def _can() -> bool:
    memory = mmap.mmap(-1, 1 << 22, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:] = bytes(len(memory))
    collapse()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return not any(line.split() == ["AnonHugePages:", "0", "kB"] for line in lines)


@pytest.mark.skipif(not _can(), reason="this kernel does not make huge pages on demand")
@pytest.mark.in_turn(2)
@pytest.mark.parametrize("workers", ["-n0", "-n1"])
@pytest.mark.parametrize("number", [COLLAPSE_PAYS_FROM - 1, COLLAPSE_PAYS_FROM])
def test_tests_are_forked_from_huge_pages_if_there_are_many(
    tmp_path: Path, number: int, workers: str
) -> None:
    suite = _SUITE.replace("NUMBER", str(number)).replace("FROM", str(COLLAPSE_PAYS_FROM))
    write_files(tmp_path, {"test_it.py": suite})
    ended = run_pytest(tmp_path, "--fkit", workers, timeout=120)
    assert f" {number} passed in " in ended.lines[-1], ended.out
