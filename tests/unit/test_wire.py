from __future__ import annotations

import enum
import marshal
import pathlib
from typing import Any

import pytest

from pytest_fkit import own
from pytest_fkit.protocol.endings import Signaled
from pytest_fkit.protocol.event_file import (
    Completed,
    GpuError,
    JunitRecord,
    Phase,
    Report,
    ReportFacts,
    WideTeardown,
)
from pytest_fkit.protocol.messages import Ended, Go, Message, Output, Run, RunTogether
from pytest_fkit.protocol.plain_values import carriable
from pytest_fkit.protocol.process_keys import OWN, SESSION, ProcessKey
from pytest_fkit.protocol.wire import Packer, Sorter, Unpacker, following, unpack_all

_RUN = Run(5, 6, SESSION, ProcessKey("spawn", environ=(("A", "1"),)), location=("a.py", 3, "b"))
_RECORD = JunitRecord("property", "a", "b")

_MESSAGES: list[Message] = [
    Phase("setup", 1.5),
    Output(1, b"\xff\x00"),
    Report({"longrepr": ("path", 3, "skipped"), "none": None, "list": [1, (2,)]}),
    Completed(by_pytest=True),
    Ended(Signaled(11), used=((1.5,), (), b"")),
    RunTogether(_RUN, ((4, _RUN.location), (5, _RUN.location)), 0.2),
    Go(Run(5, -1), ("wide",)),
    Report({}, ReportFacts(GpuError("device", "lost", gpus=("0",)), junit=(_RECORD, _RECORD))),
    WideTeardown(0.5, (), Report({"when": "teardown"}), 1.0),
]


def _frames() -> list[bytes]:
    packer = Packer()
    return [packer.pack(message) for message in _MESSAGES]


def test_messages_arrive_as_they_were() -> None:
    stream = b"".join(_frames())
    assert list(Unpacker().feed(stream)) == _MESSAGES
    assert list(unpack_all(stream)) == _MESSAGES
    assert following(stream) == len(_MESSAGES)


def test_values_arrive_with_their_types() -> None:
    ended, together, go, report, teardown = Unpacker().feed(b"".join(_frames()))[-5:]
    assert type(ended.ending) is Signaled
    assert together.at(1) is together.run
    assert together.at(0) == _RUN._replace(position=4, next_position=5, next_key=SESSION)
    assert go.run.key is OWN
    assert report.facts.gpu_error.category == "device"
    assert report.facts.junit[1].kind == "property"
    assert teardown.report.facts is None


def test_messages_arrive_though_a_hook_forbids_marshal(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object) -> bytes:
        raise PermissionError("an audit hook of the test")

    with monkeypatch.context() as patches:
        patches.setattr(own.marshal, "dumps", forbidden)
        stream = b"".join(_frames())
    assert list(Unpacker().feed(stream)) == _MESSAGES


def test_messages_arrive_in_pieces_of_any_size() -> None:
    stream = b"".join(_frames())
    unpacker = Unpacker()
    received = [
        message
        for position in range(len(stream))
        for message in unpacker.feed(stream[position : position + 1])
    ]
    assert received == _MESSAGES
    assert not unpacker.trouble


@pytest.mark.parametrize("damaged", range(len(_MESSAGES)))
def test_nothing_is_read_after_a_damaged_frame(damaged: int) -> None:
    frames = list(map(bytearray, _frames()))
    frames[damaged][-1] ^= 1
    unpacker = Unpacker()
    assert unpacker.feed(b"".join(frames)) == _MESSAGES[:damaged]
    assert unpacker.broken
    assert unpacker.trouble == f"message {damaged} is damaged"
    assert unpacker.feed(b"".join(_frames())) == []


@pytest.mark.parametrize("twice", range(len(_MESSAGES)))
def test_a_frame_that_comes_twice_counts_once(twice: int) -> None:
    frames = _frames()
    unpacker = Unpacker()
    assert unpacker.feed(b"".join([*frames[: twice + 1], *frames[twice:]])) == _MESSAGES
    assert not unpacker.trouble


@pytest.mark.parametrize("first", range(len(_MESSAGES) - 1))
def test_two_frames_that_changed_places_are_put_in_order(first: int) -> None:
    frames = _frames()
    frames[first], frames[first + 1] = frames[first + 1], frames[first]
    unpacker = Unpacker()
    assert unpacker.feed(b"".join(frames)) == _MESSAGES
    assert not unpacker.trouble


@pytest.mark.parametrize("missing", range(len(_MESSAGES) - 1))
def test_nothing_is_read_after_a_frame_that_is_missing(missing: int) -> None:
    frames = _frames()
    del frames[missing]
    unpacker = Unpacker()
    assert unpacker.feed(b"".join(frames)) == _MESSAGES[:missing]
    assert unpacker.trouble == f"message {missing} is missing"


def test_frames_before_the_first_one_that_is_wanted_are_left_out() -> None:
    assert Sorter(2).feed(b"".join(_frames())) == _frames()[2:]


@pytest.mark.parametrize("cut", [1, 5, 8, 12])
def test_a_frame_that_is_not_complete_is_left_out(cut: int) -> None:
    *whole, last = _frames()
    sorter = Sorter()
    assert sorter.feed(b"".join(whole) + last[:cut]) == whole
    assert sorter.feed(last[cut:]) == [last]


def test_only_built_in_types_can_be_packed() -> None:
    with pytest.raises(ValueError, match="unmarshallable"):
        Packer().pack(Report({"path": pathlib.Path("/")}))


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
        ({_Text("a"), (1, pathlib.PurePosixPath("b"))}, {"a", (1, "b")}),
        ({"key": frozenset([frozenset([1])])}, {"key": frozenset([frozenset([1])])}),
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
