from __future__ import annotations

import os
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_fkit.system import paths

PARTS = st.lists(st.sampled_from(["a", "b", "c d", "é"]), max_size=4)
PATHS = PARTS.map(lambda parts: "/" + "/".join(parts))


@given(PATHS, PATHS)
def test_paths_are_as_pathlib_and_os_have_them(one: str, other: str) -> None:
    inside = PurePath(other) in PurePath(one).parents
    assert paths.below(one, other) == (os.path.relpath(one, other) if inside else None)
    assert paths.relative(one, other) == os.path.relpath(one, other)
    assert paths.base_name(one) == PurePath(one).name
    assert paths.joined(other, one) == str(PurePath(other) / one)
    assert paths.joined(other, "x/y") == str(PurePath(other) / "x/y")


def test_files_are_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"line\r\n\xff\x0b\n\n" + b"x" * 10_000)
    assert paths.read_bytes(str(file)) == file.read_bytes()
    assert paths.read_lines(str(file)) == ["line\r", "\ufffd\x0b", "x" * 10_000]
    assert paths.read_text("/proc/self/stat").startswith(f"{os.getpid()} ")
    with pytest.raises(FileNotFoundError):
        paths.read_text(str(tmp_path / "none"))
