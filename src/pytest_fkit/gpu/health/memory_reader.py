"""Waits for memory of GPUs, as their driver counts it; a process of its own, one per worker.

It outlives keepers, and remembers how much memory of each GPU was in use, by no process that is
known, when the worker's last test was over. Any fork of the worker may ask, by one pipe, so frames
are not numbered throughout as they are in other streams.
"""

from __future__ import annotations

import json
import pwd
from typing import Callable, Collection, Mapping, Sequence

from ... import system
from ...named_tuple import NamedTuple
from ...own import os, own_builtins, select, signal, time
from ...protocol.endings import format_size
from ...protocol.wire import Known, Packer, cut, unpack
from ...system.unforkable import holders
from ..answers import FailedError, MissingError
from ..interpreters import imported
from ..machine import Machine
from ..vendors.driver import Counter

own_builtins(globals())

SLACK = 64 << 20
"""Bytes that may be in use beyond what was noted: less than a context takes. What drivers keep for
themselves varies."""

_KEPT = 1 << 30
"""Bytes that a driver may keep for itself, or for what processes share."""

_PAUSES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Seconds between looks, the last one from then on."""

_MOST = 3000
"""Characters of an answer, which has to fit into one write to a pipe."""

# The inode of the first PID namespace: PROC_PID_INIT_INO in the Linux kernel's proc_ns.h. Drivers
# differ in which pids they report for processes of other namespaces.
_FIRST_NAMESPACE = 0xEFFFFFFC


class MemoryRequest(NamedTuple):
    """Wait for memory, or note how much is in use.

    :param what: "note" what is in use; wait until that is "back" as noted, or until "need" is free;
        "begin" is "note" the first time and "back" from then on.
    :param ours: pids of processes that the worker's tests have.
    :param need: bytes that are to be free.
    :param seconds: to wait at most.
    :param id: of this request, in its answer, too.
    """

    what: str
    gpus: tuple[str, ...]
    ours: tuple[int, ...]
    need: int
    seconds: float
    id: str = ""


class MemoryAnswer(NamedTuple):
    """The result of waiting for memory.

    :param lines: for people, about memory that is missing or was not given back.
    :param unknown: why something is not known, or "".
    :param id: of the request.
    """

    lines: tuple[str, ...] = ()
    unknown: str = ""
    id: str = ""


class CannotAnswer(NamedTuple):
    """No request will be answered."""

    why: str


MESSAGES: Known = {cls.__name__: cls for cls in (MemoryRequest, MemoryAnswer, CannotAnswer)}


class Look(NamedTuple):
    """The memory of a GPU at one moment.

    :param known: bytes of each of its processes that we know to live, by pid.
    :param unknown: bytes in use by no such process.
    :param whole: whether these are all of this run's processes that could have memory.
    :param trouble: why these may not even be all of the worker's, "" if they are.
    """

    total: int = 0
    free: int = 0
    known: Mapping[int, int] = {}
    unknown: int = 0
    whole: bool = False
    trouble: str = ""

    def available(self, ours: Collection[int]) -> int:
        """Bytes that a test can have: the free ones, and those of its own processes."""
        return self.free + sum(used for pid, used in self.known.items() if pid in ours)


def serve(
    root: str, parent: str, requests: str, answers: str, memory: str, gpus: str, own: str,
    shared: str,
) -> None:  # fmt: skip
    """Answer requests until the last process that could send one is gone.

    :param root: of the :class:`.Machine`.
    :param parent: the worker's pid.
    :param requests: descriptor to read from; `answers`: to write to.
    :param memory: see :class:`.vendor.Vendor`.
    :param gpus: by id, UUID and PCI address, as JSON; `own`: the ids of the worker's.
    :param shared: "1" if other workers use these, too, else "0".
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the processes that run tests
    system.die_with_parent(int(parent))
    pipe = _Pipe(int(requests), int(answers))
    named: dict[str, Sequence[str]] = json.loads(gpus)
    try:
        find = imported(memory)(Machine(root)).find
    except (MissingError, FailedError) as error:
        pipe.answer(CannotAnswer(str(error)))
        return
    waiter = Waiter(find, named, shared == "1", pipe.asked)
    waiter.note(json.loads(own))
    while True:
        request = pipe.next()
        if request is None:
            return
        pipe.answer(waiter.obey(request))


class _Pipe:
    def __init__(self, requests: int, answers: int) -> None:
        self._requests = requests
        self._answers = answers
        self._data = bytearray()

    def asked(self, seconds: float) -> bool:
        """Whether another request, or the end, comes within this time."""
        return bool(select.select([self._requests], [], [], max(0.0, seconds))[0])

    def next(self) -> MemoryRequest | None:
        """The last request; None at the end. Those who sent requests before it are gone."""
        while True:
            frames = cut(self._data)
            if frames:
                (request,) = unpack(frames[-1], MESSAGES)
                assert isinstance(request, MemoryRequest)
                return request
            data = os.read(self._requests, 1 << 16)
            if not data:
                return None
            self._data += data

    def answer(self, message: MemoryAnswer | CannotAnswer) -> None:
        os.write(self._answers, Packer().pack(message))


class Waiter:
    """Waits until memory is given back, or there is enough.

    :param find: what counts the memory of a GPU, given its UUID and PCI address.
    :param gpus: by id, UUID and PCI address.
    :param shared: whether other workers use the same GPUs.
    :param asked: waits for another request, so many seconds at most; whether there is one.
    """

    def __init__(
        self,
        find: Callable[[str, str], Counter],
        gpus: Mapping[str, Sequence[str]],
        shared: bool,
        asked: Callable[[float], bool],
    ) -> None:
        self._find = find
        self._gpus = gpus
        self._shared = shared
        self._asked = asked
        self._counters: dict[str, Counter] = {}
        self._base: dict[str, int] = {}
        self._begun = False

    def obey(self, request: MemoryRequest) -> MemoryAnswer:
        """Carry out a request."""
        what, gpus, ours, need, seconds, ident = request
        if what == "begin":
            what, self._begun = "back" if self._begun else "note", True
        if what == "note":
            self.note(gpus, ours)
            return MemoryAnswer(id=ident)
        began = time.monotonic()
        pauses = iter(_PAUSES)
        pause = 0.0
        while True:
            looks = {gpu: self._look(gpu, ours) for gpu in gpus}
            if what == "need":
                known = [gpu for gpu, look in looks.items() if not look.trouble]
                bad = [gpu for gpu in known if looks[gpu].available(ours) < need]
                hopeless = any(looks[gpu].total < need for gpu in bad)
            else:
                bad = [gpu for gpu, look in looks.items() if self._more(gpu, look) > SLACK]
                hopeless = False
            waited = time.monotonic() - began
            pause = next(pauses, pause)
            if not bad or hopeless or waited > seconds or self._asked(pause):
                break
        if what == "need":
            lines = [_lack(gpu, looks[gpu], ours, need) for gpu in bad]
        else:
            beside = "; maybe of a test of another worker that has this GPU" if self._shared else ""
            lines = [
                f"GPU {gpu}: {format_size(self._more(gpu, looks[gpu]))} more than before the test, "
                f"held by no process that is seen here, {waited:.1f} s after it{beside}"
                for gpu in bad
            ]
        for gpu, look in looks.items():
            self._remember(gpu, look)
        unknown = [f"GPU {gpu}: {look.trouble}" for gpu, look in looks.items() if look.trouble]
        return MemoryAnswer(tuple(_cut(lines)), "; ".join(_cut(unknown)), ident)

    def note(self, gpus: Sequence[str], ours: Collection[int] = ()) -> None:
        """Note the memory in use now, to which it is to return after a test."""
        for gpu in gpus:
            self._remember(gpu, self._look(gpu, ours))

    def _remember(self, gpu: str, look: Look) -> None:
        if look.whole:
            self._base[gpu] = look.unknown

    def _more(self, gpu: str, look: Look) -> int:
        """Bytes in use beyond what was noted; 0 where that is unknown."""
        return look.unknown - self._base[gpu] if look.whole and gpu in self._base else 0

    def _look(self, gpu: str, ours: Collection[int]) -> Look:
        try:
            if gpu not in self._counters:
                uuid, pci = self._gpus.get(gpu, ("", ""))
                self._counters[gpu] = self._find(uuid, pci)
            count = self._counters[gpu]()
        except FailedError as error:
            return Look(trouble=str(error))
        first = _is_first_namespace()
        known = {pid: used for pid, used in count.processes.items() if _lives(pid, first)}
        ours_known = set(known).issuperset(holders(ours, contexts=True))
        whole = ours_known and ((first and count.named) or not self._shared)
        unknown = max(0, count.total - count.free - sum(known.values()))
        trouble = "" if ours_known else "its driver does not say what each of our processes has"
        return Look(count.total, count.free, known, unknown, whole, trouble)


def _is_first_namespace() -> bool:
    return os.stat("/proc/self/ns/pid").st_ino == _FIRST_NAMESPACE


def _lives(pid: int, first: bool) -> bool:
    """Whether the process lives to which the driver gives this pid.

    :param first: whether the pid is known to mean the same here.
    """
    if system.process_state(pid) in ("", "Z", "X"):
        return False
    return first or bool(holders([pid], contexts=True))


def _lack(gpu: str, look: Look, ours: Collection[int], need: int) -> str:
    if look.total < need:
        return f"GPU {gpu} has {format_size(look.total)} in all"
    text = f"GPU {gpu} has {format_size(look.available(ours))} of {format_size(look.total)} free"
    others = sorted((used, pid) for pid, used in look.known.items() if pid not in ours)
    held = [f"{format_size(used)}: {_who(pid)}" for used, pid in reversed(others[-4:])]
    if len(others) > 4:
        held.append(f"{format_size(sum(used for used, _ in others[:-4]))}: {len(others) - 4} more")
    if look.unknown > _KEPT:
        held.append(f"{format_size(look.unknown)}: no process that is seen here")
    return f"{text} ({'; '.join(held)})" if held else text


def _who(pid: int) -> str:
    """A process for people: pid, command and user."""
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return f"pid {pid}, gone by now"
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = f"user {uid}"
    return f"{system.describe(pid)[:120]}, of {user}"


def _cut(lines: Sequence[str]) -> list[str]:
    return [line[: _MOST // len(lines)] for line in lines]
