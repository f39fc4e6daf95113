"""The processes that read Xids, on machines that do not exist."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence

import pytest

import fleet as fleets
from pytest_fkit import system
from pytest_fkit.gpu.interpreters import light_interpreter

Fleet = Callable[..., Mapping[str, str]]
Read = Callable[[str, int], List[Dict[str, Any]]]

GPUS = fleets.nvidia(2, mig=[1], instances=3)
WHOLE, (ONE, TWO, THREE) = GPUS[0], GPUS[1].mig or ()


@pytest.fixture
def started() -> Iterator[Callable[..., Read]]:
    """Starts readers; what it returns waits for so many lines of one."""
    with ExitStack() as stack:

        def start(machine: Mapping[str, str], *functions: str) -> Read:
            # The second instance is not of this run.
            ours: Sequence[tuple[str, ...]] = [
                ("0", WHOLE.uuid, WHOLE.pci, ""),
                ("one", ONE.mig_uuid, GPUS[1].pci, GPUS[1].uuid),
                ("three", THREE.mig_uuid, GPUS[1].pci, GPUS[1].uuid),
            ]
            descriptor = system.anonymous_file("test")
            stack.callback(os.close, descriptor)
            told = str(descriptor), str(os.getpid()), json.dumps(ours)
            os.set_inheritable(descriptor, True)
            reader = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
            stack.callback(os.close, reader)
            for function in functions:
                command = light_interpreter(f"pytest_fkit.gpu.health.xid_reader:{function}", *told)
                process = subprocess.Popen(
                    command, env={**os.environ, **machine}, pass_fds=[descriptor]
                )
                stack.callback(process.wait)
                stack.callback(process.kill)

            def read(source: str, number: int) -> list[dict[str, Any]]:
                deadline = time.monotonic() + 60
                while True:
                    lines = os.pread(reader, 1 << 20, 0).splitlines()
                    found = [each for each in map(json.loads, lines) if source in each.values()]
                    if len(found) >= number:
                        return found
                    assert time.monotonic() < deadline, lines
                    time.sleep(0.01)

            return read

        yield start


def append(machine: Mapping[str, str], name: str, *lines: str) -> None:
    with Path(machine["FKIT_FLEET_ROOT"], name).open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def gpus(line: Mapping[str, Any]) -> tuple[int, list[str]]:
    return line["xid"], line["gpus"]


@pytest.mark.skipif(not fleets.compiler(), reason="no C compiler for the driver's library")
@pytest.mark.skipif(system.PORTABLE, reason="readers are Linux's")
def test_each_tells_of_the_gpus_and_instances_of_the_run(
    fleet: Fleet, started: Callable[..., Read]
) -> None:
    machine = fleet(GPUS)
    append(machine, "dev/kmsg", "3,1,2,-;NVRM: Xid (PCI:0000:07:00): 79, before the run")
    append(machine, "xids")
    read = started(machine, "read_nvml", "read_kernel_log")
    assert read("NVML", 1)[0]["instances"] == {"one": 1, "three": 3}
    read("kernel log", 1)
    whole, parent = GPUS[0].uuid, GPUS[1].uuid
    events = (f"{whole} 79 -1", f"{parent} 95 -1", f"{parent} 94 3", f"{parent} 13 2", "x 79 -1")
    append(machine, "xids", *events, f"{whole} 0 -1", f"{whole} 31 -1")
    found = [(79, ["0"]), (95, ["one", "three"]), (94, ["three"]), (31, ["0"])]
    assert list(map(gpus, read("NVML", 5)[1:])) == found
    before, other = GPUS[0].pci[:-2], GPUS[1].pci[:-2]
    append(
        machine, "dev/kmsg",
        f"3,2,3,-;NVRM: Xid (PCI:{before}): 119, pid={os.getpid()}, name=python3, Timeout",
        f"3,2,3,-;NVRM: Xid (PCI:{other}): 95, pid=1, Uncontained",
        f"3,2,3,-;NVRM: Xid (PCI:{other} GPU-I:03): 94, pid='<unknown>', name=<unknown>, Contained",
        f"3,2,3,-;NVRM: Xid (PCI:{other} GPU-I:02): 94, pid=7, Contained",
        "3,2,3,-;NVRM: Xid (PCI:0000:ff:00): 79, pid=7, GPU has fallen off the bus.",
        f"12,2,3,-;NVRM: Xid (PCI:{before}): 79, from a user",
        "\x00rubbish", ";", "3,2,3,-;",
        f"4,2,3,-;NVRM: Xid (PCI:{before}): 31, pid=4000000000, name=gone, MMU Fault",
    )  # fmt: skip
    _, *lines = read("kernel log", 5)
    assert list(map(gpus, lines)) == [
        (119, ["0"]), (95, ["one", "three"]), (94, ["three"]), (31, ["0"]),
    ]  # fmt: skip
    if os.readlink("/proc/self/ns/pid") == "pid:[4026531836]":
        assert lines[0]["above"][:2] == [os.getpid(), os.getppid()]
        assert lines[0]["above"][-1] == lines[1]["above"][0] == 1
        assert "above" not in lines[3]


@pytest.mark.skipif(not fleets.compiler(), reason="no C compiler for the driver's library")
@pytest.mark.parametrize(
    ("function", "behaviour", "reason"),
    [
        ("read_nvml", fleets.Behaviour(exits=9), "Driver Not Loaded"),
        ("read_kernel_log", fleets.Behaviour(), "No such file"),
    ],
)
def test_what_can_not_be_read_is_over_at_once(
    fleet: Fleet,
    started: Callable[..., Read],
    function: str,
    behaviour: fleets.Behaviour,
    reason: str,
) -> None:
    machine = fleet(GPUS, behaviours={"libnvidia-ml.so.1": behaviour})
    source = "NVML" if function == "read_nvml" else "kernel log"
    [said] = started(machine, function)(source, 1)
    assert reason in said["reason"]
