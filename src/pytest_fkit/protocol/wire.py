"""Messages as frames of bytes: length, checksum, number in the stream, fields by marshal."""

from __future__ import annotations

from typing import Any, Mapping, Type, get_args

from ..own import marshal, own_builtins, pickle, struct, zlib
from .crash_report import Core, NativeStacks
from .endings import Ending
from .event_file import GpuError, HeldReport, JunitRecord, Report, ReportFacts, WideTeardown
from .messages import (
    BY_NAME,
    Ended,
    Follows,
    Go,
    HostFiles,
    Message,
    Run,
    RunTogether,
    TornDown,
)
from .process_keys import OWN, ProcessKey

own_builtins(globals())

MARSHAL_VERSION = 4
"""The version of marshal's format; Python 3.4 to 3.14 read it."""

_PICKLED = b"\x80"
"""What a pickle begins with, its opcode PROTO, and nothing of marshal's does."""

_HEADER = struct.Struct("<III")

Known = Mapping[str, Type[Any]]
"""Types of messages, by name."""

_VALUES: Known = {
    cls.__name__: cls
    for cls in (
        *get_args(Ending), Core, Ended, GpuError, JunitRecord, NativeStacks, ProcessKey, Report,
        ReportFacts, Run,
    )
}  # fmt: skip
"""Types of ours that fields of messages may have; they travel with their names, as messages do."""

_PLACES: dict[str, tuple[tuple[int, object], ...]] = {}
"""Where messages and values have such values, by their names; and the one that None stands for."""


def has_values(kind: Any, *fields: str, absent: object = None) -> None:
    """Declare that these fields of a type have values of ours, or several of them.

    :param absent: the value that most of them have.
    """
    places = ((1 + kind._fields.index(name), absent) for name in fields)
    _PLACES[kind.__name__] = tuple(places)


has_values(Report, "facts")
has_values(HeldReport, "report")
has_values(WideTeardown, "report")
has_values(ReportFacts, "gpu_error", "junit")
has_values(Run, "key", "next_key", absent=OWN)
has_values(RunTogether, "run")
has_values(Follows, "next_key", absent=OWN)
has_values(HostFiles, "key")
has_values(Go, "run")
has_values(Ended, "ending", "native", "core")
has_values(TornDown, "ended")


class Packer:
    """Makes the numbered frames of one stream."""

    def __init__(self) -> None:
        self._number = 0

    def pack(self, *messages: tuple[Any, ...]) -> bytes:
        """The next frame.

        :param messages: NamedTuples, one at least.
        :raises ValueError: for fields that are not built-in values; see
            :func:`.plain_values.carriable`.
        """
        fields: Any
        if len(messages) == 1:
            (message,) = messages
            name = type(message).__name__
            fields = _plain(message) if name in _PLACES else (name, *message)
        else:
            fields = list(map(_plain, messages))
        try:
            body = marshal.dumps(fields, MARSHAL_VERSION)
        except Exception:  # noqa: BLE001 (an audit hook may raise anything, and for good)
            body = _pickled(fields)
        number, self._number = self._number, self._number + 1
        return _HEADER.pack(len(body), zlib.crc32(body, number), number) + body


def _plain(value: Any) -> tuple[Any, ...]:
    """A message, or a value in one, or several, as a tuple of its name and its fields."""
    if type(value) is tuple:
        return tuple(map(_plain, value))
    name = type(value).__name__
    if name not in _PLACES:
        return (name, *value)
    fields = [name, *value]
    for place, absent in _PLACES[name]:
        each = fields[place]
        fields[place] = None if each is absent else _plain(each)
    return tuple(fields)


def _made(said: tuple[Any, ...], known: Known) -> Any:
    """Undo :func:`_plain`."""
    if not said or type(said[0]) is not str:
        return tuple(_made(each, known) for each in said)
    name = said[0]
    if name not in _PLACES:
        return known[name](*said[1:])
    fields = [*said]
    for place, absent in _PLACES[name]:
        each = fields[place]
        fields[place] = absent if each is None else _made(each, _VALUES)
    return known[name](*fields[1:])


def _pickled(fields: tuple[Any, ...] | list[tuple[Any, ...]]) -> bytes:
    """By pickle, which raises no audit event, where a hook keeps us from marshal.

    :raises Exception: marshal's, where it refuses the fields.
    """
    try:
        marshal.dumps(None)
    except Exception:  # noqa: BLE001 (of the hook)
        return pickle.dumps(fields, 4)
    return marshal.dumps(fields, MARSHAL_VERSION)


def unpack(frame: bytes, known: Known = BY_NAME) -> list[Any]:
    """The messages in a whole frame."""
    return _messages(frame[_HEADER.size :], known)


def _messages(body: bytes, known: Known) -> list[Any]:
    # The checksum holds, the writer is ours.
    said = pickle.loads(body) if body[:1] == _PICKLED else marshal.loads(body)
    if type(said) is tuple:
        return [_made(said, known)]
    return [_made(each, known) for each in said]


def unpack_all(frames: bytes) -> list[Message]:
    """The messages in frames that a :class:`Sorter` has passed."""
    found: list[Message] = []
    end = 0
    while end < len(frames):
        length, _, _ = _HEADER.unpack_from(frames, end)
        begin = end + _HEADER.size
        end = begin + length
        found += _messages(frames[begin:end], BY_NAME)
    return found


def cut(buffer: bytearray) -> list[bytes]:
    """Take the whole frames off a buffer: of several streams, so their numbers say nothing."""
    found = []
    while len(buffer) >= _HEADER.size:
        end = _HEADER.size + _HEADER.unpack_from(buffer)[0]
        if len(buffer) < end:
            break
        found.append(bytes(buffer[:end]))
        del buffer[:end]
    return found


def following(frames: bytes) -> int:
    """The number of the frame that comes after these, of which there is at least one."""
    number = position = 0
    while position < len(frames):
        length, _, number = _HEADER.unpack_from(frames, position)
        position += _HEADER.size + length
    return number + 1


class Sorter:
    """Cuts a stream of bytes into frames, each once and in the order in which they were made.

    A process may die in the middle of a frame, or write rubbish after its memory was corrupted:
    nothing is read after the first frame that is not whole and sound. Nor after one that is
    missing, which is known when two later ones are there.

    :param first: number of the first frame to pass on.
    """

    def __init__(self, first: int = 0) -> None:
        self._buffer = bytearray()
        self._next = first
        self._early: dict[int, bytes] = {}
        self._damage = ""
        self.broken = False
        """Whether nothing more is read."""

    @property
    def trouble(self) -> str:
        """What is wrong with the stream if this is its end, "" if nothing is."""
        if self._damage or not self._early:
            return self._damage
        return f"message {self._next} is missing"

    def feed(self, data: bytes) -> list[bytes]:
        """Take `data` in; the frames that are now complete, with all before them."""
        if self._damage:
            return []
        buffer = self._buffer
        buffer += data
        found: list[bytes] = []
        position = 0
        # Cut off at once in the end: there may be thousands.
        while not self._damage and len(buffer) - position >= _HEADER.size:
            length, checksum, number = _HEADER.unpack_from(buffer, position)
            end = position + _HEADER.size + length
            if len(buffer) < end:
                break
            frame = bytes(buffer[position:end])
            position = end
            if zlib.crc32(frame[_HEADER.size :], number) != checksum:
                self._break("damaged")
            elif number == self._next and not self._early:
                found.append(frame)
                self._next += 1
            else:
                found += self._sorted(number, frame)
        del buffer[:position]
        return found

    def _break(self, what: str) -> None:
        self.broken, self._damage = True, f"message {self._next} is {what}"

    def _sorted(self, number: int, frame: bytes) -> list[bytes]:
        """The frames that can be passed on now that this one is here, not simply the next."""
        if number < self._next:  # a duplicate
            return []
        if number > self._next:
            self._early[number] = frame
            if len(self._early) > 1:
                self._break("missing")
            return []
        found = [frame]
        self._next += 1
        while self._next in self._early:
            found.append(self._early.pop(self._next))
            self._next += 1
        return found


class Unpacker:
    """Cuts a stream of bytes into messages; see :class:`Sorter`.

    :param known: as for :func:`unpack`.
    """

    def __init__(self, known: Known = BY_NAME) -> None:
        self._known = known
        self._sorter = Sorter()
        self.broken = False
        """Whether nothing more is read."""

    @property
    def trouble(self) -> str:
        """What is wrong with the stream if this is its end, "" if nothing is."""
        return self._sorter.trouble

    def feed(self, data: bytes) -> list[Any]:
        """Take `data` in; the messages that are complete."""
        found: list[Any] = []
        for frame in self._sorter.feed(data):
            found += unpack(frame, self._known)
        self.broken = self._sorter.broken
        return found
