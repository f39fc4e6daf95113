"""Xids: lines of the kernel's log, whose time and GPUs they are of, and what they decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_fkit.gpu.errors.classification import classify
from pytest_fkit.gpu.errors.failure import Failure
from pytest_fkit.gpu.errors.patterns import parse_patterns
from pytest_fkit.gpu.health.xid_reader import LoggedXid, parse_line, parse_record
from pytest_fkit.gpu.health.xids import (
    DEVICE,
    KERNEL,
    KINDS,
    NVML,
    PROGRAM,
    Xid,
    XidFile,
    decided,
    described,
    falling_into,
    may_explain,
    xid_of,
)
from pytest_fkit.protocol.endings import Exited, Finished, Lost, MemoryExceeded, Signaled, TimedOut
from pytest_fkit.protocol.event_file import GpuError

# As people quote them: issues of NVIDIA/open-gpu-kernel-modules (363, 1150, 1151),
# madMAx43v3r/chia-gigahorse (301), leptonai/gpud (pull requests 46 and 1174, and its tests),
# comments on error containment in NVIDIA's kernel modules (GPU-I), debug.md of
# stas00/ml-engineering, and NVIDIA's "Xid Errors" (the oldest form, without a bus).
LINES = {
    "NVRM: Xid (PCI:0000:2b:00): 79, GPU has fallen off the bus.":
        LoggedXid(79, "0000:2b:00.0", -1, 0, "", "GPU has fallen off the bus."),
    "NVRM: Xid (PCI:0000:05:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.":
        LoggedXid(79, "0000:05:00.0", -1, 0, "", "GPU has fallen off the bus."),
    "NVRM: Xid (PCI:0000:08:00): 31, pid=169800, name=chrome, Ch 00000023. MMU Fault":
        LoggedXid(31, "0000:08:00.0", -1, 169800, "chrome",
                  "Ch 00000023. MMU Fault"),
    "NVRM: Xid (PCI:0000:dc:00): 45, pid=1818990, name=python3, Ch 00000001 caused by previous "
    "Xid 149":
        LoggedXid(45, "0000:dc:00.0", -1, 1818990, "python3",
                  "Ch 00000001 caused by previous Xid 149"),
    "NVRM: Xid (PCI:0000:01:00 GPU-I:05): 94, pid=7194, Contained: CE User Channel (0x9). RST: No":
        LoggedXid(94, "0000:01:00.0", 5, 7194, "", "Contained: CE User Channel (0x9). RST: No"),
    "NVRM: Xid (PCI:0000:3B:00 GPU-I:01 GPU-CI:02): 13, pid=9, name=a, Graphics Exception":
        LoggedXid(13, "0000:3b:00.0", 1, 9, "a", "Graphics Exception"),
    "NVRM: Xid (PCI:0000:0a:00): 45, pid='<unknown>', name=<unknown>, Ch 00000008":
        LoggedXid(45, "0000:0a:00.0", -1, 0, "", "Ch 00000008"),
    "NVRM: Xid (PCI:0019:01:00): 149, NETIR Fatal XC0 i0 Link -1 (0x000fe406 0x00000000)":
        LoggedXid(149, "0019:01:00.0", -1, 0, "",
                  "NETIR Fatal XC0 i0 Link -1 (0x000fe406 0x00000000)"),
    "NVRM: Xid (PCI:0000:10:1c): 63, pid=1896, Row Remapper: New row marked for remapping, reset "
    "gpu to activate.":
        LoggedXid(63, "0000:10:1c.0", -1, 1896, "",
                  "Row Remapper: New row marked for remapping, reset gpu to activate."),
    "NVRM: Xid (0000:03:00): 14, Channel 00000001":
        LoggedXid(14, "0000:03:00.0", -1, 0, "", "Channel 00000001"),
    "NVRM: Xid (PCI:0000:01:00): 48":
        LoggedXid(48, "0000:01:00.0", -1, 0, "", ""),
}  # fmt: skip


@pytest.mark.parametrize(("line", "said"), LINES.items())
def test_lines_of_the_driver_are_understood(line: str, said: LoggedXid) -> None:
    assert parse_line(line) == said
    assert parse_record(f"3,1184,5140900,-;{line}\n SUBSYSTEM=pci\n") == said
    # From a user who may write to /dev/kmsg: another facility.
    assert parse_record(f"12,1184,5140900,-;{line}") is None


@pytest.mark.parametrize(
    "record",
    [
        "3,1,2,-;NVRM: GPU at PCI:0000:2b:00: GPU-0b11d014-1685-04bd-26ed-5fc0bc1c44ae",
        "3,1,2,-;NVRM: GPU 0000:2b:00.0: GPU has fallen off the bus.",
        "3,1,2,-;nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 30",
        "3,1,2,-;NVRM: Xid critical error: 79, details follow",
        "3,1,2,-;NVRM: Xid (PCI:0000:2b",
        "3,1,2,-;NVRM: Xid (PCI:0000:2b:00): ",
        "3,1,2,-;NVRM: Xid (PCI:0000:2b:00): xyz",
        "3,1,2,-;somebody quotes NVRM: Xid (PCI:0000:2b:00): 79, pid=1",
        "NVRM: Xid (PCI:0000:2b:00): 79, pid=1",
        "x,1,2,-;NVRM: Xid (PCI:0000:2b:00): 79, pid=1",
        f"{'9' * 5000},1,2,-;NVRM: Xid (PCI:0000:2b:00): 79",
        f"3,1,2,-;NVRM: Xid (PCI:0000:2b:00): {'9' * 5000}, pid=1",
        " SUBSYSTEM=pci",
        "",
    ],
)
def test_other_lines_are_not(record: str) -> None:
    found = parse_record(record)
    assert found is None or found.number < 10**6


@given(st.sampled_from(sorted(LINES)), st.data())
def test_whatever_is_cut_off_or_garbled_raises_nothing(line: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(line)))
    parse_record("3,1,2,-;" + line[:at] + data.draw(st.text(max_size=20)) + line[at:])
    assert parse_record("3,1,2,-;" + line[:12]) is None


def xid(number: int, at: float = 10.0, **more: Any) -> Xid:
    return Xid(number, ("3",), 1000.0 + at, at, KERNEL)._replace(**more)


def numbers(found: tuple[Xid, ...]) -> list[int]:
    return [each.number for each in found]


def test_those_of_the_time_and_the_gpus_are_found() -> None:
    known = [xid(79, 4.9), xid(48, 5.0), xid(31, 6.0, gpus=("2",)), xid(13, 7.0, gpus=("2", "3"))]
    assert numbers(falling_into(known, ["3"], 5.0)) == [48, 13]
    assert numbers(falling_into(known, ["2", "0"], 0.0)) == [31, 13]
    assert falling_into(known, [], 0.0) == ()


def test_what_is_known_to_be_of_somebody_else_is_left_out() -> None:
    known = [
        xid(31, pid=50, above=(50, 40, 7, 1)),
        xid(13, pid=60, above=(60, 8, 1)),
        xid(43, pid=70),
    ]
    assert numbers(falling_into(known, ["3"], 0.0, worker=7)) == [31, 43]
    assert numbers(falling_into(known, ["3"], 0.0)) == [31, 13, 43]


def test_one_that_is_read_in_two_places_is_one() -> None:
    twice = [xid(31, 10.0, source=NVML), xid(31, 10.2, pid=60, above=(60, 1))]
    assert [each.source for each in falling_into(twice, ["3"], 0.0)] == [KERNEL]
    # Nor is it of the test if the log says that it is of somebody else.
    assert falling_into(twice, ["3"], 0.0, worker=7) == ()
    # Before the test, and during it.
    assert falling_into(twice, ["3"], 10.1, worker=7) == ()
    others = [xid(31, 10.0, source=NVML), xid(31, 12.0), xid(31, 10.0, gpus=("2",))]
    assert len(falling_into(others, ["3"], 0.0)) == 2


DOUBTFUL = GpuError("sticky", "illegal access", probe=True, poisons=True, doubtful=True)
SURE = GpuError("memory", "out of memory", alone=True)


def test_an_xid_decides_where_the_message_cannot() -> None:
    device = decided(DOUBTFUL, "", [xid(31), xid(79), xid(45)])
    assert device is not None
    assert (device.category, device.counts, device.retry) == ("device", True, True)
    assert device.text == "Xid 79 (GPU has fallen off the bus) on GPU 3: illegal access"
    program = decided(DOUBTFUL._replace(counts=True, event="model"), "", [xid(13), xid(45)])
    assert program is not None
    assert (program.category, program.counts, program.retry) == ("sticky", False, False)
    assert program.event == "model"
    assert program.text == "Xid 13 (Graphics Engine Exception) on GPU 3: illegal access"
    for follows in ([], [xid(43), xid(45)], [xid(999)], [xid(109), xid(154)]):
        assert decided(DOUBTFUL, "", follows) == DOUBTFUL
    assert decided(SURE, "", [xid(79), xid(31)]) == SURE


def test_a_death_that_nothing_explains_is_the_devices_if_an_xid_says_so() -> None:
    found = decided(None, "SIGABRT in call", [xid(48)])
    assert found is not None
    assert (found.category, found.retry) == ("device", True)
    assert decided(None, "SIGABRT in call", [xid(31)]) is None
    assert decided(None, "", [xid(48)]) is None  # a failed assertion


@pytest.mark.parametrize(
    ("ending", "may"),
    [
        (Signaled(6), True), (Signaled(11), True), (Exited(1), True), (TimedOut(5.0), True),
        (Signaled(9), False), (Signaled(15), False), (Exited(0), False), (Finished(), False),
        (Lost("x"), False), (MemoryExceeded(1, 2), False),
    ],
)  # fmt: skip
def test_not_every_death_is_a_gpus(ending: Any, may: bool) -> None:
    assert may_explain(ending) is may


def test_what_follows_from_another_one_is_as_that() -> None:
    assert xid(45, text="Ch 00000002 caused by previous Xid 95").fault == "device"
    assert xid(45, text="Ch 00000002 caused by previous Xid 31").fault == "program"
    assert xid(45, text="caused by previous Xid 77777").fault == ""
    assert xid(45).fault == xid(43).fault == xid(7777).fault == ""


@pytest.mark.parametrize(
    ("message", "doubtful"),
    [
        ("CUDA error: an illegal memory access was encountered", True),
        ("CUDA error: unspecified launch failure", True),
        ("CUDA error: unknown error", True),
        ("CUBLAS_STATUS_EXECUTION_FAILED", True),
        ("CUDA error: something new", True),
        ("CUDA error: uncorrectable ECC error encountered", False),
        ("CUDA out of memory. Tried to allocate 2.00 GiB.", False),
        ("no CUDA-capable device is detected", False),
    ],
)
def test_some_messages_decide_themselves(message: str, doubtful: bool) -> None:
    failure = Failure(("builtins.RuntimeError",), message)
    found = classify(failure)
    assert found is not None
    assert found.doubtful is doubtful
    own = classify(failure, parse_patterns(["suspect: CU|no CUDA"]))
    assert own is not None
    assert not own.doubtful  # what the user says is so


def test_a_report_names_them_once() -> None:
    same = [xid(13, text="Graphics SM Warp Exception")] * 3
    text = described([*same, xid(31, pid=5, process="python3", text="MMU Fault")])
    first, second = text.splitlines()
    assert first.startswith("Xid 13 (Graphics Engine Exception) on GPU 3 at ")
    assert first.endswith(", 3 times: Graphics SM Warp Exception")
    assert second.endswith(": pid 5 (python3), MMU Fault")
    many = described([xid(number) for number in range(200, 300)]).splitlines()
    assert len(many) == 21
    assert many[-1] == "and 80 other Xids"
    assert len(described([xid(13, text="x" * 5000)])) < 400


def test_the_file_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "xids"
    file = XidFile(str(path))
    assert file.read() == []  # nobody has made it
    line = {"xid": 79, "gpus": ["3"], "wall": 1.0, "mono": 2.0, "source": NVML}
    rubbish = [b"\xff", b"[1]", b"{}", b'{"xid": "x"}', b"[" * 5000, b'{"xid": 1, "gpus": 5}']
    text = b'{"ready": "NVML"}\n' + b"\n".join(rubbish) + b"\n" + json.dumps(line).encode()
    path.write_bytes(text)
    assert file.read() == []  # its line is not whole
    assert file.is_told
    path.write_bytes(text + b'\n{"ended": "NVML", "reason": "x"}\n')
    assert file.read() == [xid_of(line)]
    assert file.read() == []
    assert [file.is_told] == [False]
    path.unlink()
    assert file.read() == []


def test_the_documentation_says_what_they_decide() -> None:
    page = Path(__file__).parents[2] / "docs/gpus/health.md"
    table = page.read_text(encoding="utf-8").partition("\n## Xids\n")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    said = [{int(number) for number in row.split(", ")} for row in rows[2:4]]
    by_fault = [{n for n, kind in KINDS.items() if kind.fault == f} for f in (DEVICE, PROGRAM)]
    assert said == by_fault
