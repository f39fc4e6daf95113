"""Which files are set aside for a new journal, where to, and how their runs are resumed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Sequence

import pytest

from pytest_fkit.journal.events import FORMAT, SCHEMA, encode, event
from pytest_fkit.journal.files import AppendedFile, command_to_resume, look_at, set_aside


def _run(number: int = 1) -> bytes:
    return encode(
        event(
            "run", format=FORMAT, schema=SCHEMA, id=str(number), session="1", pid=number,
            arguments=[f"-n{number}"], directory="/", rootdir="/", versions={}, options={},
            devices=[], slices={}, machine={},
        )
    )  # fmt: skip


_END = encode(event("end", exitstatus=0))
_OTHER = encode(event("collection", worker="gw0", tests=1, nodeids=['{"event":"end"']))


@pytest.mark.parametrize(
    ("data", "keep", "arguments"),
    [
        (b"", False, None),
        (_run()[:20], False, None),
        (_run() + _OTHER + _END, False, None),
        (_run() + _END + _run(2) + _END, False, None),
        (_run(), True, ["-n1"]),
        (_run() + _OTHER + _OTHER[:-5], True, ["-n1"]),
        (_run() + _OTHER + _END[:-1], True, ["-n1"]),
        (_run() + _END + _run(2) + _OTHER, True, ["-n2"]),
        (b"no journal\n", True, None),
        (b"no journal", True, None),
        (b"\0\xff\n", True, None),
        (_run().replace(SCHEMA.encode(), b"99.0"), True, None),
    ],
    # Before pytest 9 ids are made of the data, in which the time is: workers would not agree.
    ids=[
        "nothing",
        "begun",
        "ended",
        "ended twice",
        "not ended",
        "cut",
        "end cut",
        "second not ended",
        "text",
        "no line",
        "binary",
        "newer",
    ],
)
def test_what_has_to_stay(data: bytes, keep: bool, arguments: list[str] | None) -> None:
    found = look_at(data)
    assert found.keep is keep
    assert (found.run and found.run["arguments"]) == arguments


def test_names_that_are_taken_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    (tmp_path / "journal.1").write_bytes(b"somebody's")
    for number in (2, 3):
        data = _run(number)
        path.write_bytes(data)
        aside = set_aside(path)
        assert aside is not None
        assert aside.path == tmp_path / f"journal.{number}"
        assert aside.path.read_bytes() == data
        assert not path.exists()
    assert (tmp_path / "journal.1").read_bytes() == b"somebody's"


def test_the_file_is_moved_and_not_a_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    real = tmp_path / "data" / "journal"
    real.write_bytes(_run())
    link = tmp_path / "journal"
    link.symlink_to(real)
    aside = set_aside(link)
    assert aside is not None
    assert aside.path == tmp_path / "data" / "journal.1"
    assert link.is_symlink()
    assert not link.exists()


def test_what_is_no_file_stays() -> None:
    assert set_aside(Path("/dev/null")) is None
    assert set_aside(Path("/dev")) is None


def test_an_ended_journal_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(_run() + _END)
    assert set_aside(path) is None
    AppendedFile.open(path).close()
    assert path.read_bytes() == b""
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "elsewhere", "expected"),
    [
        (["--fkit", "--fkit-journal=j", "tests"], True, "--fkit tests --fkit-resume=j.1"),
        (["--fkit-journal", "j", "-k", "a b"], True, "-k 'a b' --fkit-resume=j.1"),
        (["--fkit-resume=j", "-x"], True, "-x --fkit-resume=j.1"),
        (["-x"], True, "-x --fkit-journal=j.1 --fkit-resume=j.1"),
        (["-x"], False, "-x --fkit-resume=j.1"),
        (["--fkit-journal"], True, "--fkit-resume=j.1"),
    ],
)
def test_the_command(arguments: Sequence[str], elsewhere: bool, expected: str) -> None:
    command = command_to_resume(arguments, "j.1", elsewhere=elsewhere)
    assert command == f"pytest {expected}"
    assert shlex.split(command)[-1] == "--fkit-resume=j.1"
