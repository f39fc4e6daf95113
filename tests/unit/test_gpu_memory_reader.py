"""Waiting for memory of GPUs as their driver counts it, and the process that does so."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Callable, Iterator, Mapping

import pytest

import fleet as fleets
from pytest_fkit.gpu.answers import FailedError
from pytest_fkit.gpu.health import memory, memory_reader
from pytest_fkit.gpu.health.memory import GpuMemory
from pytest_fkit.gpu.health.memory_reader import MemoryAnswer, MemoryRequest, Waiter
from pytest_fkit.gpu.machine import Machine
from pytest_fkit.gpu.slices.ownership import Owned
from pytest_fkit.gpu.vendors.driver import Count, Counter

GIB = 1 << 30
MIB = 1 << 20
ME = os.getpid()
GONE = 1 << 22  # above the highest pid that Linux gives

MakeFleet = Callable[..., Mapping[str, str]]


class Driver:
    """Says one thing after the other of a GPU with 80 GiB; the last one again and again."""

    def __init__(self, *used: int, processes: Mapping[int, int] | None = None) -> None:
        self.used = list(used)
        self.processes = dict(processes or {})
        self.looks = 0
        self.named = True

    def count(self) -> Count:
        self.looks += 1
        used = self.used.pop(0) if len(self.used) > 1 else self.used[0]
        return Count(80 * GIB, 80 * GIB - used, self.processes, self.named)

    def waiter(self, shared: bool = False) -> Waiter:
        def find(uuid: str, pci: str) -> Counter:
            if not uuid:
                raise FailedError("it is unknown")
            return self.count

        return Waiter(find, {"0": ("GPU-0", ""), "1": ("", "")}, shared, lambda _: False)


def back(waiter: Waiter, seconds: float = 60.0, ours: tuple[int, ...] = ()) -> list[str]:
    return [*waiter.obey(MemoryRequest("back", ("0",), ours, 0, seconds)).lines]


def need(waiter: Waiter, gib: int, ours: tuple[int, ...] = ()) -> MemoryAnswer:
    return waiter.obey(MemoryRequest("need", ("0",), ours, gib * GIB, 0.0))


@pytest.fixture(params=[True, False], ids=["first namespace", "another"])
def first(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether drivers mean the same by a pid as we do."""
    monkeypatch.setattr(memory_reader, "_is_first_namespace", lambda: request.param)
    return bool(request.param)


def test_what_comes_back_is_waited_for(first: bool) -> None:
    driver = Driver(GIB, 40 * GIB, 30 * GIB, GIB + 10 * MIB)
    waiter = driver.waiter()
    waiter.note(["0"])
    assert back(waiter) == []
    assert driver.looks == 4


def test_what_does_not_is_named_once(first: bool) -> None:
    driver = Driver(GIB, 40 * GIB)
    waiter = driver.waiter()
    waiter.note(["0"])
    [line] = back(waiter, 0.01)
    assert line.startswith("GPU 0: 39 GiB more than before the test, held by no process that is")
    looks = driver.looks
    assert back(waiter) == []
    assert driver.looks == looks + 1  # it is what is in use now


def test_where_nobody_looked_before_nobody_waits() -> None:
    driver = Driver(40 * GIB)
    assert back(driver.waiter()) == []
    assert driver.looks == 1


def test_what_living_processes_have_is_not_waited_for(holder: int, first: bool) -> None:
    driver = Driver(0, 30 * GIB, processes={holder: 30 * GIB})
    waiter = driver.waiter()
    waiter._base["0"] = 0
    assert back(waiter) == []


def test_what_processes_have_that_are_gone_is(first: bool) -> None:
    driver = Driver(0, 30 * GIB, processes={GONE: 30 * GIB})
    waiter = driver.waiter()
    waiter.note(["0"])
    assert len(back(waiter, 0.01)) == 1


def test_pids_of_another_namespace_are_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_reader, "_is_first_namespace", lambda: False)
    # There is one of that number here, with no GPU open.
    driver = Driver(0, 30 * GIB, processes={ME: 30 * GIB})
    waiter = driver.waiter()
    waiter.note(["0"])
    assert len(back(waiter, 0.01)) == 1


def test_nobody_waits_where_our_own_may_have_it(holder: int, first: bool) -> None:
    # The driver names no processes, as in containers, and a server of a wide fixture is there.
    driver = Driver(0, 30 * GIB)
    waiter = driver.waiter()
    waiter.note(["0"])
    assert back(waiter, ours=(holder,)) == []
    assert driver.looks == 2
    assert len(back(waiter, 0.01)) == 1  # by the time the server is gone


def test_nobody_waits_where_other_workers_may_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_reader, "_is_first_namespace", lambda: False)
    driver = Driver(0, 30 * GIB)
    waiter = driver.waiter(shared=True)
    waiter.note(["0"])
    assert back(waiter) == []
    monkeypatch.setattr(memory_reader, "_is_first_namespace", lambda: True)
    waiter.note(["0"])
    driver.used = [60 * GIB]
    driver.named = False
    assert back(waiter) == []
    driver.named = True
    assert len(back(waiter, 0.01)) == 1


def test_the_wait_ends_where_somebody_else_asks() -> None:
    driver = Driver(0, 30 * GIB)
    waiter = Waiter(lambda *_: driver.count, {"0": ("GPU-0", "")}, False, lambda _: True)
    waiter.note(["0"])
    assert len(back(waiter)) == 1
    assert driver.looks == 2


def test_what_is_free_and_what_ones_own_processes_have_is_to_be_had(
    holder: int, first: bool
) -> None:
    driver = Driver(70 * GIB, processes={holder: 60 * GIB})
    assert need(driver.waiter(), 10) == MemoryAnswer()
    assert need(driver.waiter(), 70, (holder,)) == MemoryAnswer()
    [line] = need(driver.waiter(), 11).lines
    assert line.startswith(f"GPU 0 has 10 GiB of 80 GiB free (60 GiB: pid {holder} (")
    assert line.endswith("; 10 GiB: no process that is seen here)")
    driver.processes = {}
    assert need(driver.waiter(), 70, (holder,)).unknown.startswith("GPU 0: its driver does not")


def test_what_a_test_needs_is_waited_for() -> None:
    driver = Driver(70 * GIB, 50 * GIB, 30 * GIB)
    waiter = driver.waiter(shared=True)
    assert waiter.obey(MemoryRequest("need", ("0",), (), 50 * GIB, 60.0)).lines == ()
    assert driver.looks == 3
    driver.used = [50 * GIB]
    assert len(waiter.obey(MemoryRequest("need", ("0",), (), 31 * GIB, 0.01)).lines) == 1


def test_nobody_waits_for_more_than_there_is() -> None:
    driver = Driver(0)
    answer = driver.waiter().obey(MemoryRequest("need", ("0",), (), 81 * GIB, 60.0))
    assert answer.lines == ("GPU 0 has 80 GiB in all",)
    assert driver.looks == 1


def test_a_gpu_of_which_nobody_tells(first: bool) -> None:
    waiter = Driver(0).waiter()
    assert waiter.obey(MemoryRequest("need", ("1",), (), GIB, 60.0)) == MemoryAnswer(
        unknown="GPU 1: it is unknown"
    )
    assert waiter.obey(MemoryRequest("back", ("9",), (), 0, 60.0)).lines == ()


def test_a_keeper_that_follows_a_killed_one_waits() -> None:
    driver = Driver(GIB, 30 * GIB)
    waiter = driver.waiter()
    assert waiter.obey(MemoryRequest("begin", ("0",), (), 0, 0.01)).lines == ()
    assert len(waiter.obey(MemoryRequest("begin", ("0",), (), 0, 0.01)).lines) == 1


# --- the process --------------------------------------------------------------------------------


@pytest.fixture
def start(
    fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[GpuMemory, Path]]]:
    """Starts the process on a machine with these GPUs."""
    found = []

    def begin(gpus: list[fleets.Gpu], seconds: float = 0.0) -> tuple[GpuMemory, Path]:
        machine = fleet(gpus)
        for name, text in machine.items():
            monkeypatch.setenv(name, text)
        named = {str(gpu.ordinal): [gpu.uuid, gpu.pci] for gpu in gpus}
        for gpu in gpus:
            named.update({each.mig_uuid: [each.mig_uuid, ""] for each in gpu.mig or ()})
        owned = Owned(0, ("0",), vendor=gpus[0].vendor)
        asked = memory._start(owned, named, seconds)
        assert asked is not None
        found.append(asked)
        return asked, Path(machine["FKIT_FLEET_ROOT"])

    yield begin
    for each in found:
        each.end()


def ask(asked: GpuMemory, what: str, *gpus: str, need: int = 0) -> MemoryAnswer:
    asked.ask(what, gpus, (), need)
    answer = None
    while answer is None:
        answer = asked.answer(1.0)
    return answer._replace(id="")


needs_nvml = pytest.mark.skipif(not fleets.compiler(), reason="needs a C compiler")


@needs_nvml
def test_nvml(start: Callable[..., tuple[GpuMemory, Path]], holder: int) -> None:
    gpus = fleets.nvidia(2, mig=[1], instances=2)
    asked, root = start(gpus)
    part = gpus[1].mig and gpus[1].mig[1].mig_uuid
    assert part
    assert ask(asked, "begin", "0") == MemoryAnswer()
    (root / "used").write_text(f"{gpus[0].uuid} {20 * GIB} 0\n{part} {2 * GIB} 0\n")
    lines = [f"{gpus[0].uuid} {GONE + number} {MIB}\n" for number in range(40)]
    lines += [f"{gpus[0].uuid} {holder} {15 * GIB}\n", f"{part} {holder} -1\n"]
    (root / "processes").write_text("".join(lines))
    [first] = ask(asked, "need", "0", need=70 * GIB).lines
    assert first.startswith("GPU 0 has 59.65 GiB of 79.65 GiB free (15 GiB: pid ")
    assert f"pid {holder} (S): " in first
    assert first.endswith("; 5 GiB: no process that is seen here)")
    assert ask(asked, "need", part, need=7 * GIB) == MemoryAnswer()
    [second] = ask(asked, "need", part, need=8 * GIB).lines
    assert (
        second == f"GPU {part} has 7.75 GiB of 9.75 GiB free (2 GiB: no process that is seen here)"
    )
    [third] = ask(asked, "need", part, need=10 * GIB).lines
    assert third == f"GPU {part} has 9.75 GiB in all"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_amd(start: Callable[..., tuple[GpuMemory, Path]], holder: int) -> None:
    gpus = fleets.amd(2)
    asked, root = start(gpus)
    gpu = gpus[0]
    device = root / f"sys/bus/pci/devices/{gpu.pci}"
    assert ask(asked, "need", "0", need=190 * GIB) == MemoryAnswer()
    (device / "mem_info_vram_used").write_text(f"{30 * GIB}\n")
    process = root / f"sys/class/kfd/kfd/proc/{holder}"
    process.mkdir(parents=True)
    (process / f"vram_{20000 + gpu.node}").write_text(f"{29 * GIB}\n")
    (process / f"vram_{20000 + gpus[1].node}").write_text(f"{5 * GIB}\n")
    [line] = ask(asked, "need", "0", need=170 * GIB).lines
    assert line.startswith("GPU 0 has 162 GiB of 192 GiB free (29 GiB: pid ")
    (device / "mem_info_vram_used").unlink()
    answer = ask(asked, "need", "0", need=170 * GIB)
    assert answer.unknown.endswith("mem_info_vram_used can't be read")


def test_where_there_is_no_library(
    start: Callable[..., tuple[GpuMemory, Path]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpus = fleets.nvidia(1)

    class Here:
        @staticmethod
        def here() -> Machine:
            return Machine(str(tmp_path))

    monkeypatch.setattr(memory, "Machine", Here)
    asked, _ = start(gpus)
    assert ask(asked, "need", "0", need=GIB).unknown == "there is no libnvidia-ml.so.1"


@needs_nvml
def test_a_driver_that_hangs_is_asked_no_more(
    start: Callable[..., tuple[GpuMemory, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "GRACE", 0.1)
    asked, root = start(fleets.nvidia(1))
    (root / "hangs").touch()
    assert ask(asked, "back", "0").unknown == "their driver does not answer"
    assert ask(asked, "back", "0").unknown == "their driver does not answer"


def test_answers_to_a_keeper_that_is_gone_are_not_ours() -> None:
    requests, answers = os.pipe(), os.pipe()
    asked = GpuMemory(0, requests[1], answers[0], ("0",), 5.0)
    asked.ask("back", ["0"], [])
    pipe = memory_reader._Pipe(requests[0], answers[1])
    request = pipe.next()
    assert request is not None
    for name in ("4711-1", request.id):
        pipe.answer(MemoryAnswer((name,), id=name))
    assert asked.answer(5.0) == MemoryAnswer((request.id,), id=request.id)
    asked.ask("back", ["0"], [])
    os.close(answers[1])
    assert asked.answer(5.0) == MemoryAnswer(unknown="the process that asks their driver has ended")
    os.close(requests[0])
    asked.let_go()


@pytest.mark.parametrize("closed", [0, 1])
def test_descriptors_that_a_suite_closes(tmp_path: Path, closed: int) -> None:
    requests, answers = os.pipe(), os.pipe()
    asked = GpuMemory(GONE, requests[1], answers[0], ("0",), 5.0)
    number = (requests[1], answers[0])[closed]
    with (tmp_path / "file").open("w+") as file:
        os.dup2(file.fileno(), number)
    asked.ask("back", ["0"], [])
    answer = asked.answer(1.0)
    assert answer is not None
    assert answer.unknown
    asked.let_go()
    os.fstat(number)  # it is not ours to close
    assert not (tmp_path / "file").read_bytes()
    for each in {number, requests[0], answers[1]}:
        os.close(each)


def test_a_process_that_has_ended_is_not_written_to() -> None:
    requests, answers = os.pipe(), os.pipe()
    asked = GpuMemory(GONE, requests[1], answers[0], ("0",), 5.0)
    os.close(requests[0])
    os.close(answers[1])
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        asked.ask("back", ["0"], [])
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert asked.answer(1.0) == MemoryAnswer(unknown="the process that asks their driver has ended")
    asked.let_go()
