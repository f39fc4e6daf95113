"""Finding the GPUs of machines that do not exist, with the programs and libraries they have."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Iterator

import execnet
import psutil
import pytest

from fleet import (
    Behaviour,
    Gpu,
    amd,
    amd_integrated,
    ascend,
    compiler,
    intel,
    intel_integrated,
    nvidia,
)
from pytest_fkit.gpu import interpreters, throwaway
from pytest_fkit.gpu.answers import FailedError
from pytest_fkit.gpu.devices import Device, Fleet, from_wire
from pytest_fkit.gpu.machine import ROOT, Machine
from pytest_fkit.gpu.vendors import detection

MakeFleet = Callable[..., "dict[str, str]"]

_NVML = "libnvidia-ml.so.1"
_HANGS = Behaviour(seconds=600, stubborn=True)

needs_nvml = pytest.mark.skipif(
    not compiler() or not sys.platform.startswith("linux"), reason="needs a C compiler and Linux"
)


def _detect(environment: dict[str, str], limit: float = 30.0) -> Fleet:
    began = time.monotonic()
    fleet = detection.detect(limit, Machine(environment[ROOT]))
    # A loaded machine needs time of its own to start processes and to notice that they ended.
    assert time.monotonic() - began < limit + 1.0
    return fleet


def _said(gpu: Gpu) -> Device:
    return Device(gpu.vendor, gpu.ordinal, gpu.uuid, gpu.pci, gpu.name, gpu.memory)


def test_no_gpu_costs_nothing(fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    environment = fleet(intel_integrated(), amd_integrated(), without=["xpu-smi"])
    monkeypatch.setattr(subprocess, "Popen", no_process)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        found = _detect(environment)
        seconds.append(time.perf_counter() - began)
        assert (found.vendor, found.devices, found.notices) == ("", (), ())
        assert len(found.trail) == 4
    assert min(seconds) < 0.05


def test_the_real_machine_is_looked_at_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROOT, raising=False)
    assert Machine.here() == Machine("/")
    found = detection.detect()
    assert found.trail
    assert bool(found.vendor) == bool(found.devices)


# --- NVIDIA -------------------------------------------------------------------------------------


@needs_nvml
def test_nvml(fleet: MakeFleet) -> None:
    gpus = nvidia(8)
    found = _detect(fleet(gpus, without=["nvidia-smi"]))
    assert found.vendor == "nvidia"
    assert list(found.devices) == [_said(gpu) for gpu in gpus]
    assert not found.notices
    assert re.fullmatch(r"nvidia: NVML: 8 found in \d+\.\d\d s", found.trail[-1])


@needs_nvml
@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="no /proc")
def test_nvml_is_not_loaded_here(fleet: MakeFleet) -> None:
    assert _detect(fleet(nvidia(1))).devices
    assert "libnvidia-ml" not in Path("/proc/self/maps").read_text()


def test_nvidia_smi(fleet: MakeFleet) -> None:
    gpus = nvidia(64)
    found = _detect(fleet(gpus, without=[_NVML]))
    assert list(found.devices) == [_said(gpu) for gpu in gpus]
    assert not found.notices
    assert found.trail[3] == "nvidia: NVML: there is no libnvidia-ml.so.1"


def test_proc(fleet: MakeFleet) -> None:
    gpus = nvidia(4)
    found = _detect(fleet(gpus, without=[_NVML, "nvidia-smi"]))
    # The device files count in another order; how much memory there is can't be told.
    assert list(found.devices) == [
        Device("nvidia", gpu.ordinal, gpu.uuid, gpu.pci, gpu.name) for gpu in gpus
    ]
    assert not found.notices


def test_a_container_without_gpus_on_a_machine_that_has_some(fleet: MakeFleet) -> None:
    environment = fleet(nvidia(2), without=[_NVML, "nvidia-smi"])
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        Path(environment[ROOT], "dev", name).unlink()
    found = _detect(environment)
    assert not found.devices
    assert not found.notices


def _without_driver(environment: dict[str, str]) -> dict[str, str]:
    root = Path(environment[ROOT])
    shutil.rmtree(root / "proc/driver/nvidia")
    for device in (root / "dev").glob("nvidia*"):
        device.unlink()
    return environment


def test_gpus_over_a_network_have_an_nvidia_smi_and_no_driver(fleet: MakeFleet) -> None:
    gpus = nvidia(8)
    found = _detect(_without_driver(fleet(gpus, without=[_NVML])))
    assert list(found.devices) == [_said(gpu) for gpu in gpus]
    assert not found.notices


def test_nobody_is_told_of_an_nvidia_smi_on_a_machine_without_a_driver(fleet: MakeFleet) -> None:
    # As where nvidia-utils is installed, in the driver's own words.
    said = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    behaviours = {"nvidia-smi": Behaviour(exits=9, prints=said)}
    environment = fleet(nvidia(1), without=[_NVML], behaviours=behaviours)
    found = _detect(_without_driver(environment))
    assert not found.devices
    assert not found.notices
    assert any("couldn't communicate" in line for line in found.trail)


@pytest.mark.parametrize(
    "without",
    [pytest.param((), marks=needs_nvml), (_NVML,)],
    ids=["NVML", "nvidia-smi"],
)
def test_mig(fleet: MakeFleet, without: tuple[str, ...]) -> None:
    gpus = nvidia(3, mig=[1], instances=2)
    found = _detect(fleet(gpus, without=without))
    assert [(device.ordinal, device.uuid, device.parent) for device in found.devices] == [
        (0, gpus[0].uuid, ""),
        *((1, instance.mig_uuid, gpus[1].uuid) for instance in gpus[1].mig or ()),
        (2, gpus[2].uuid, ""),
    ]
    assert not found.notices


@pytest.mark.parametrize(
    "without",
    [pytest.param((), marks=needs_nvml), (_NVML,)],
    ids=["NVML", "nvidia-smi"],
)
def test_a_gpu_that_fell_off_the_bus(fleet: MakeFleet, without: tuple[str, ...]) -> None:
    found = _detect(fleet(nvidia(3, states={1: "lost"}), without=without))
    assert [device.ordinal for device in found.devices] == [0, 2]
    [notice] = found.notices
    assert "GPU 1 is left out: " in notice
    assert "GPU is lost" in notice


# --- AMD ----------------------------------------------------------------------------------------


def test_amd_in_the_order_of_hip(fleet: MakeFleet) -> None:
    gpus = amd(8, closed=[0, 3])
    found = _detect(fleet(gpus))
    assert found.vendor == "amd"
    assert list(found.devices) == [_said(gpu) for gpu in gpus if gpu.opens]
    assert not found.notices
    assert any("left out" in line and "node 2, 5" in line for line in found.trail)
    orders = {
        tuple(sorted(gpus, key=key))
        for key in (lambda g: g.pci, lambda g: g.smi, lambda g: g.render, lambda g: g.node)
    }
    assert len(orders) == 4, "the orders are the same, so nothing was tested"


def test_no_amd_gpu_that_opens(fleet: MakeFleet) -> None:
    found = _detect(fleet(amd(2, closed=[0, 1])))
    assert not found.devices
    assert found.notices == (
        "amd: KFD topology: left out, /dev/dri/renderD* does not open: node 2, 3",
    )


def test_the_gpu_of_a_ryzen_is_counted_by_hip_and_not_by_us(fleet: MakeFleet) -> None:
    found = _detect(fleet(amd_integrated(node=1), amd(2)))
    assert [device.ordinal for device in found.devices] == [1, 2]


def test_amd_without_a_topology(fleet: MakeFleet) -> None:
    environment = fleet(amd(4))
    shutil.rmtree(Path(environment[ROOT], "sys/class/kfd"))
    found = _detect(environment)
    assert (found.devices, found.notices) == ((), ())
    assert found.trail[-1] == "amd: KFD topology: there is none"


# --- the others ---------------------------------------------------------------------------------


def test_intel(fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    # The program obeys the mask; what is asked for is what there is without one.
    monkeypatch.setenv("ZE_AFFINITY_MASK", "1")
    gpus = intel(4)
    found = _detect(fleet(gpus, intel_integrated()))
    assert [(device.ordinal, device.uuid) for device in found.devices] == [
        (gpu.ordinal, gpu.uuid) for gpu in gpus
    ]


def test_intel_without_xpu_smi(fleet: MakeFleet) -> None:
    gpus = intel(2)
    found = _detect(fleet(gpus, intel_integrated(), without=["xpu-smi"]))
    assert list(found.devices) == [Device("intel", gpu.ordinal, "", gpu.pci) for gpu in gpus]


def test_an_integrated_gpu_counts_if_level_zero_lists_nothing_else(fleet: MakeFleet) -> None:
    assert [device.pci for device in _detect(fleet(intel_integrated())).devices] == ["0000:00:02.0"]


@pytest.mark.parametrize("without", [[], ["npu-smi"]])
def test_ascend(fleet: MakeFleet, without: list[str]) -> None:
    found = _detect(fleet(ascend(8), without=without))
    assert [(device.vendor, device.ordinal) for device in found.devices] == [
        ("ascend", ordinal) for ordinal in range(8)
    ]


def test_the_first_vendor_that_has_gpus_wins(fleet: MakeFleet) -> None:
    everything = (intel_integrated(), ascend(1), amd(1), nvidia(1))
    assert _detect(fleet(*everything, without=[_NVML])).vendor == "nvidia"
    assert _detect(fleet(*everything[:3])).vendor == "amd"
    assert _detect(fleet(*everything[:2])).vendor == "ascend"


# --- what goes wrong ----------------------------------------------------------------------------


@needs_nvml
def test_what_hangs_is_ended_and_the_next_way_taken(fleet: MakeFleet) -> None:
    gpus = nvidia(2)
    found = _detect(fleet(gpus, behaviours={_NVML: _HANGS}), limit=8.0)
    assert list(found.devices) == [_said(gpu) for gpu in gpus]
    [notice] = found.notices
    assert re.fullmatch(r"nvidia: NVML: timed out after 4 s", notice)


@needs_nvml
def test_all_that_hangs_together_stays_within_the_limit(fleet: MakeFleet) -> None:
    behaviours = {_NVML: _HANGS, "nvidia-smi": _HANGS}
    began = time.monotonic()
    found = _detect(fleet(nvidia(2), behaviours=behaviours), limit=6.0)
    assert time.monotonic() - began < 6.5
    # NVML had 3 s and nvidia-smi 1.5 s; the last way has what they left.
    assert len(found.devices) == 2
    assert len(found.notices) == 2


def test_a_hanging_tool_alone_stays_within_the_limit(fleet: MakeFleet) -> None:
    environment = fleet(ascend(2), behaviours={"npu-smi": _HANGS})
    began = time.monotonic()
    found = _detect(environment, limit=1.0)
    assert time.monotonic() - began < 10  # on a busy machine, and the tool hangs for longer
    [notice] = found.notices  # where that is very busy, it adds that the tool is not gone yet
    assert notice.startswith("ascend: npu-smi: timed out after 0.5 s")
    assert len(found.devices) == 2


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (Behaviour(dies=signal.SIGSEGV), "was ended by SIGSEGV"),
        (Behaviour(dies=signal.SIGKILL, prints="half"), "was ended by SIGKILL: half"),
        (
            Behaviour(exits=9, prints="NVIDIA-SMI has failed because …"),
            "exit status 9: NVIDIA-SMI has failed because …",
        ),
        (Behaviour(exits=3), "exit status 3"),
        (Behaviour(prints="\x00\x7f[[[{"), "what it prints can't be understood"),
        (Behaviour(prints="GPU 0, GPU-0, 0, 0, 0, 0"), "what it prints can't be understood"),
        (Behaviour(prints=""), "what it prints can't be understood: ''"),
        (Behaviour(endless=True), "printed more than 4 MiB"),
    ],
)
def test_a_tool_that_is_no_use(fleet: MakeFleet, behaviour: Behaviour, reason: str) -> None:
    environment = fleet(nvidia(2), without=[_NVML], behaviours={"nvidia-smi": behaviour})
    found = _detect(environment)
    assert len(found.devices) == 2
    [notice] = found.notices
    assert notice.startswith(f"nvidia: nvidia-smi: {reason}")
    assert found.trail[-1].startswith("nvidia: /proc: 2 found")


@needs_nvml
@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (Behaviour(dies=signal.SIGSEGV), "was ended by SIGSEGV"),
        (Behaviour(exits=18), "Driver/library version mismatch"),
    ],
)
def test_a_library_that_is_no_use(fleet: MakeFleet, behaviour: Behaviour, reason: str) -> None:
    found = _detect(fleet(nvidia(2), behaviours={_NVML: behaviour}))
    assert len(found.devices) == 2
    assert found.notices == (f"nvidia: NVML: {reason}",)


def test_a_tool_that_can_not_be_started(fleet: MakeFleet) -> None:
    environment = fleet(nvidia(1), without=[_NVML])
    Path(environment[ROOT], "bin", "nvidia-smi").write_text("no program")
    found = _detect(environment)
    assert len(found.devices) == 1
    assert "nvidia-smi: can't be started: [Errno 8] Exec format error" in found.notices[0]


def test_no_time_at_all(fleet: MakeFleet) -> None:
    found = _detect(fleet(ascend(1)), limit=0.0)
    assert found.notices == ("ascend: npu-smi: not asked, no time is left",)


@contextlib.contextmanager
def _survivors() -> Iterator[list[int]]:
    pids: list[int] = []
    try:
        yield pids
    finally:
        for pid in pids:
            throwaway.kill_group(pid)
            os.waitpid(pid, 0)


def test_a_process_that_survives_sigkill_is_named_and_left_alone(
    fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _survivors() as killed:
        environment = fleet(ascend(1), behaviours={"npu-smi": _HANGS})
        # A process in uninterruptible sleep can't be made here: this one is not sent the signal.
        with monkeypatch.context() as patched:
            patched.setattr(throwaway, "kill_group", killed.append)
            found = _detect(environment, limit=2.0)
        [notice] = found.notices
        [pid] = killed
        assert notice.startswith(f"ascend: npu-smi: timed out after 1 s; pid {pid} (")
        assert notice.endswith("does not end, not even by SIGKILL, and was left alone")
        assert len(found.devices) == 1


def test_what_a_tool_leaves_running_is_ended() -> None:
    command = ["/bin/sh", "-c", "sleep 600 & echo $!"]
    began = time.monotonic()
    pid = int(throwaway.output_of(command, os.environ, 30.0))
    assert time.monotonic() - began < 20.0
    while _runs(pid):
        assert time.monotonic() - began < 20.0
        select.select([], [], [], 0.02)


def _runs(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def test_an_interrupt_ends_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    kill_group = throwaway.kill_group

    def kill(pid: int) -> None:
        sent.append(pid)
        kill_group(pid)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(throwaway, "kill_group", kill)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            throwaway.output_of(["sleep", "600"], os.environ, 60.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    [pid] = sent
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("said", ["", "[]", "{}", "1", '{"answer": 1, "failed": 2}', "{" * 100_000])
def test_no_answer_of_our_own_interpreter(said: str) -> None:
    with pytest.raises(FailedError, match="no answer came back"):
        interpreters.answer_of(said)


# --- other processes, other machines ------------------------------------------------------------


def test_a_run_on_the_machine_of_its_environment(fleet: MakeFleet) -> None:
    program = (
        "import json; from pytest_fkit.gpu.vendors.detection import detect; "
        "from pytest_fkit.gpu.devices import to_wire; print(json.dumps(to_wire(detect(30))))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **fleet(amd(3))},
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    ).stdout
    assert len(from_wire(json.loads(said)).devices) == 3


def test_a_gateway_of_execnet(fleet: MakeFleet) -> None:
    environment = fleet(amd(3))
    group = execnet.Group()
    try:
        gateway = group.makegateway(f"popen//python={sys.executable}")
        channel = gateway.remote_exec(
            f"""
            import os
            os.environ.update({environment!r})
            from pytest_fkit.gpu.vendors.detection import detect
            from pytest_fkit.gpu.devices import to_wire
            channel.send(to_wire(detect(30)))
            """
        )
        found = from_wire(channel.receive(60))
    finally:
        group.terminate(5)
    assert found.vendor == "amd"
    assert [device.ordinal for device in found.devices] == [0, 1, 2]


# --- answers of drivers that are not well -------------------------------------------------------

# nvidia-smi(1): "Return code 14 - infoROM is corrupted"; pytorch/pytorch pull request 87464,
# NVIDIA/gpu-operator issues 20 and 285.
_INFOROM = "WARNING: infoROM is corrupted at gpu 0000:0F:00.0"


def test_an_nvidia_smi_that_warns(fleet: MakeFleet) -> None:
    gpus = nvidia(3, mig=[1], instances=2)
    behaviours = {"nvidia-smi": Behaviour(also=_INFOROM, exits=14)}
    found = _detect(fleet(gpus, without=[_NVML], behaviours=behaviours))
    assert [(device.ordinal, device.parent) for device in found.devices] == [
        (0, ""), (1, gpus[1].uuid), (1, gpus[1].uuid), (2, ""),
    ]  # fmt: skip
    assert list(found.notices) == [f"nvidia: nvidia-smi: exit status 14: {_INFOROM}"]


# gpustat issue 125, NVIDIA/open-gpu-kernel-modules issue 387, JosephKJ/OWOD issue 81.
@pytest.mark.parametrize(
    "said",
    [
        "Unable to determine the device handle for GPU {}: Unknown Error",
        "Unable to determine the device handle for GPU{}: Unknown Error",
        "Unable to determine the device handle for GPU {}: GPU is lost.  Reboot the system",
    ],
)
def test_a_gpu_that_nvidia_smi_can_not_reach_is_not_found_by_the_next_way(
    fleet: MakeFleet, said: str
) -> None:
    gpus = nvidia(3)
    line = said.format(gpus[1].pci.upper())
    behaviours = {"nvidia-smi": Behaviour(prints=line, exits=15)}
    found = _detect(fleet(gpus, without=[_NVML], behaviours=behaviours))
    assert [device.uuid for device in found.devices] == [gpus[0].uuid, gpus[2].uuid]
    [notice] = found.notices
    assert notice == f"nvidia: nvidia-smi: exit status 15: {line}"


def test_an_nvidia_smi_that_is_off_the_path_in_wsl(fleet: MakeFleet) -> None:
    gpus = nvidia(1)
    root = Path(_without_driver(fleet(gpus, without=[_NVML]))[ROOT])
    (root / "dev/dxg").touch()
    hidden = root / "usr/lib/wsl/lib"
    hidden.mkdir(parents=True)
    (root / "bin/nvidia-smi").rename(hidden / "nvidia-smi")
    found = _detect({ROOT: str(root)})
    assert [device.uuid for device in found.devices] == [gpus[0].uuid]
    assert not found.notices
    (hidden / "nvidia-smi").unlink()
    found = _detect({ROOT: str(root)})
    assert not found.devices
    assert not found.notices
