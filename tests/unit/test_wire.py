from __future__ import annotations

import enum
import marshal
import pathlib
from typing import Any

import pytest

from pytest_fkit.carriable import carriable
from pytest_fkit.messages import Completed, Message, Output, Phase, Report
from pytest_fkit.wire import Unpacker, pack, whole_frames

_MESSAGES: list[Message] = [
    Phase("setup", 1.5),
    Output(1, b"\xff\x00"),
    Report({"longrepr": ("path", 3, "skipped"), "none": None, "list": [1, (2,)]}),
    Completed(),
]


def test_messages_arrive_as_they_were() -> None:
    stream = b"".join(map(pack, _MESSAGES))
    assert list(Unpacker().feed(stream)) == _MESSAGES


def test_messages_arrive_in_pieces_of_any_size() -> None:
    stream = b"".join(map(pack, _MESSAGES))
    unpacker = Unpacker()
    received = [
        message
        for position in range(len(stream))
        for message in unpacker.feed(stream[position : position + 1])
    ]
    assert received == _MESSAGES
    assert not unpacker.broken


def test_nothing_is_read_after_a_damaged_frame() -> None:
    good, bad = pack(_MESSAGES[0]), bytearray(pack(_MESSAGES[2]))
    bad[-1] ^= 1
    unpacker = Unpacker()
    assert list(unpacker.feed(good + bytes(bad) + good)) == [_MESSAGES[0]]
    assert unpacker.broken
    assert list(unpacker.feed(good)) == []


@pytest.mark.parametrize("cut", [1, 5, 8, 12])
def test_whole_frames_leaves_out_the_one_that_is_not_complete(cut: int) -> None:
    whole = pack(_MESSAGES[0]) + pack(_MESSAGES[1])
    assert whole_frames(whole) == len(whole)
    assert whole_frames(whole + pack(_MESSAGES[2])[:cut]) == len(whole)
    assert whole_frames(b"") == 0


def test_only_built_in_types_can_be_packed() -> None:
    with pytest.raises(ValueError, match="unmarshallable"):
        pack(Report({"path": pathlib.Path("/")}))


class _Text(str):
    def __str__(self) -> str:
        raise RuntimeError("asked")


class _Number(enum.IntEnum):
    ONE = 1


class _Silent:
    def __repr__(self) -> str:
        raise KeyError("no")


class _Loud:
    def __repr__(self) -> str:
        return "loud \udc80"


@pytest.mark.parametrize(
    ("value", "carried"),
    [
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (_Text("text"), "text"),
        (_Number.ONE, 1),
        (True, True),
        ("lone \udc80", "lone \\udc80"),
        ("fine é", "fine é"),
        (b"\xff", b"\xff"),
        ({"key": [_Text("a"), (pathlib.PurePosixPath("b"),)]}, {"key": ["a", ("b",)]}),
        (_Silent(), "<unpresentable _Silent: KeyError>"),
        (_Loud(), "loud \\udc80"),
        (None, None),
    ],
)
def test_carriable(value: Any, carried: Any) -> None:
    result: Any = carriable(value)
    assert result == carried
    assert type(result) is type(carried)
    marshal.dumps(result)


def test_carriable_ends_what_contains_itself() -> None:
    value: list[Any] = []
    value.append(value)
    marshal.dumps(carriable(value))
