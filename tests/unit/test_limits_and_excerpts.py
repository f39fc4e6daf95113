"""Limits that are raised around our calls, descriptors out of the way, and output that is cut."""

from __future__ import annotations

import errno
import os
import re
import resource
import subprocess
import sys
from typing import Iterator

import pytest

from pytest_fkit import system
from pytest_fkit.protocol.descriptors import Files, slots
from pytest_fkit.sandbox.process import excerpts
from pytest_fkit.system import limits


def test_soft_limits_are_raised_within_the_block_only() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowered = (min(100, before[1]), before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, lowered)
    try:
        with limits.room():
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == lowered
        with pytest.raises(KeyError), limits.room():
            raise KeyError
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == lowered
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, ""), r"open files is \d+ \(RLIMIT_NOFILE; `ulimit -n 1024` raises"),
        (OSError(errno.EFBIG, ""), r"size of files is -?\d+ \(RLIMIT_FSIZE; `ulimit -f unlimited`"),
        (OSError(errno.EAGAIN, ""), "RLIMIT_NPROC; `ulimit -u unlimited`|pids.max"),
        (MemoryError(), "RLIMIT_AS|RLIMIT_DATA|no memory left"),
    ],
)
def test_what_was_refused_is_said(error: OSError | MemoryError, said: str) -> None:
    assert limits.is_refusal(error)
    text = limits.refusal(error)
    assert re.search(said, text), text


def test_other_errors_are_no_limits() -> None:
    assert not limits.is_refusal(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert limits.status_of(KeyError(), 70) == 70


def test_each_status_names_its_limit() -> None:
    for error in (OSError(errno.EMFILE, ""), OSError(errno.EFBIG, ""), MemoryError()):
        assert "`ulimit -" in limits.refusal_of(limits.status_of(error, 0))
    assert not limits.refusal_of(1)


def where(ulimit: str) -> tuple[int, int]:
    """The first number of the slots, and that of the first file of a process under that limit."""
    program = (
        "from pytest_fkit.protocol.descriptors import Files, slots; import os;"
        "files = Files.create(); print(slots.events, min(files), os.dup(0))"
    )
    shell = ["sh", "-c", f'ulimit {ulimit} && exec "$@"', "sh"]
    said = subprocess.check_output([*shell, sys.executable, "-c", program], text=True)
    first, lowest, next_number = map(int, said.split())
    assert next_number < 20  # what a test opens has the numbers that it would have without us
    return first, lowest


@pytest.mark.parametrize("ulimit", ["-Sn 20", "-Sn 256", "-Sn 1024"])
def test_ours_are_above_what_is_usually_closed(ulimit: str) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1280:
        pytest.skip("needs a hard limit on open files of 1280")
    assert where(ulimit) == (1024, 1031)


@pytest.mark.parametrize(("ulimit", "first"), [("-n 256", 160), ("-n 64", 32)])
def test_ours_are_at_the_top_of_a_low_hard_limit(ulimit: str, first: int) -> None:
    assert where(ulimit) == (first, first + 7)


def test_files_need_a_hard_limit_above_the_slots() -> None:
    program = (
        "import resource; from pytest_fkit.protocol.descriptors import Files, slots;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (slots.end - 1, slots.end - 1));"
        "Files.create()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "Errno 24" in ended.stderr


def test_slots_are_in_the_order_of_files() -> None:
    assert [getattr(slots, name) for name in Files._fields] == list(slots)


@pytest.fixture
def file() -> Iterator[int]:
    descriptor = system.anonymous_file("test")
    yield descriptor
    os.close(descriptor)


@pytest.fixture(autouse=True)
def small_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excerpts, "END", 1 << 16)


def fill(file: int) -> bytes:
    data = b"".join(b"line %d\n" % number for number in range(100_000))
    os.write(file, data)
    return data


def test_short_output_is_read_whole(file: int) -> None:
    os.write(file, b"a" * (2 << 16))
    assert not excerpts.is_long(file)
    assert excerpts.read_ends(file) == b"a" * (2 << 16)
    assert excerpts.read_ends(file, 5) == b"a" * ((2 << 16) - 5)


@pytest.mark.parametrize("freed", [False, True])
def test_both_ends_of_long_output_are_whole_lines(file: int, freed: bool) -> None:
    data = fill(file)
    if freed:
        excerpts.free_middle(file)
    assert excerpts.is_long(file)
    first, last = re.split(rb"\n\xe2\x80\xa6 93\d\.\d KiB of [^\n]*\n", excerpts.read_ends(file))
    assert data.startswith(first)
    assert first.endswith(b"\n")
    assert len(first) > excerpts.END - 100
    assert data.endswith(last)
    assert last.startswith(b"line ")
    assert len(last) > excerpts.END - 100


def test_output_without_an_end_of_line_is_cut_all_the_same(file: int) -> None:
    os.write(file, b"a" * (1 << 20))
    read = excerpts.read_ends(file)
    assert read.count(b"a") == 2 * excerpts.END
    assert b"896 KiB" in read


@pytest.mark.skipif(system.PORTABLE, reason="files are on a disk there")
def test_the_memory_of_the_middle_is_given_back(file: int) -> None:
    fill(file)
    size = os.fstat(file).st_size
    excerpts.free_middle(file)
    assert os.fstat(file).st_size == size
    assert os.fstat(file).st_blocks * 512 <= 2 * excerpts.END + 2 * os.sysconf("SC_PAGE_SIZE")


def test_a_truncated_file_is_no_trouble(file: int) -> None:
    assert b"".join(excerpts.chunks(file, 0, 100)) == b""
    assert b"".join(excerpts.chunks(file, 100, 0)) == b""


def test_sections_are_cut_once() -> None:
    text = "b" * (1 << 20)
    cut = excerpts.shortened(text)
    assert len(cut) < 2 * excerpts.END + 60
    assert excerpts.shortened(cut) == cut
    assert excerpts.shortened("short") == "short"
