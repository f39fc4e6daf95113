"""Probes of GPUs that do not exist, through the drivers of machines that do not exist."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import psutil
import pytest

from fleet import Behaviour, amd, compiler, environment, nvidia
from pytest_fkit import own
from pytest_fkit.gpu import throwaway
from pytest_fkit.gpu.health import probe
from pytest_fkit.gpu.health.probe import Health, Probe
from pytest_fkit.gpu.machine import ROOT, Machine
from pytest_fkit.gpu.vendors import amd as amd_vendor
from pytest_fkit.gpu.vendors import cuda, driver, hip

MakeFleet = Callable[..., "dict[str, str]"]

pytestmark = pytest.mark.skipif(
    not compiler() or not sys.platform.startswith("linux"), reason="needs a C compiler and Linux"
)

HEALTHY = Health("healthy")

KILL_GROUP = throwaway.kill_group

_LIMIT = 60.0  # seconds; nothing here waits for its end but what hangs


@pytest.fixture
def begin(fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Probe]:
    """Starts a probe on a machine, given its GPUs and more of what :func:`fleet.describe` takes."""

    def begin(
        gpus: Any, expected: int, limit: float = _LIMIT, kill: Any = KILL_GROUP,
        masks: dict[str, str] | None = None, **more: Any,
    ) -> Probe:  # fmt: skip
        machine = fleet(gpus, **more)
        monkeypatch.setenv(ROOT, machine[ROOT])
        monkeypatch.setattr(throwaway, "kill_group", kill)
        # Numbers are those of PCI order, as a worker sets it.
        order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        environ = {**os.environ, **machine, **order, **(masks or {})}
        return probe.start(gpus[0].vendor, environ, limit, expected)

    return begin


def _pci(gpus: Any, ordinal: int) -> str:
    return str(gpus[ordinal].pci)


@pytest.mark.parametrize("make", [nvidia, amd])
def test_healthy_gpus(begin: Callable[..., Probe], make: Any) -> None:
    assert begin(make(2), 2).result() == HEALTHY


@pytest.mark.parametrize(
    ("make", "masks"),
    [
        (nvidia, {"CUDA_VISIBLE_DEVICES": "2,3"}),
        (amd, {"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "0,1"}),
        (amd, {"HIP_VISIBLE_DEVICES": "2,3", "CUDA_VISIBLE_DEVICES": "2,3"}),
    ],
)
def test_only_the_slice_is_tried(
    begin: Callable[..., Probe], make: Any, masks: dict[str, str]
) -> None:
    gpus = make(4, states={0: "sick", 1: "corrupt"})
    assert begin(gpus, 2, masks=masks).result() == HEALTHY
    mine = make(4, states={0: "sick", 3: "corrupt"})
    health = begin(mine, 2, masks=masks).result()
    assert health.state == "sick"
    assert health.reason.startswith(f"device 1 ({_pci(mine, 3)}): what was written to it reads ")


@pytest.mark.parametrize(
    ("state", "health"),
    [
        ("sick", Health("sick", "cuCtxCreate_v2: CUDA_ERROR_ECC_UNCORRECTABLE (214)")),
        ("busy", Health("unknown", "cuCtxCreate_v2: CUDA_ERROR_DEVICE_UNAVAILABLE (46)")),
        ("full", Health("unknown", "cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY (2)")),
        (
            "corrupt",
            Health("sick", "what was written to it reads back wrong in 1 of 1048576 bytes"),
        ),
    ],
)
def test_an_nvidia_gpu_that_is_not_well(
    begin: Callable[..., Probe], state: str, health: Health
) -> None:
    gpus = nvidia(2, states={1: state})
    where = f"device 1 ({_pci(gpus, 1)})"
    assert begin(gpus, 2).result() == Health(health.state, f"{where}: {health.reason}")


@pytest.mark.parametrize(
    ("state", "health"),
    [
        ("lost", Health("sick", "hipSetDevice: hipErrorInvalidDevice (101)")),
        ("full", Health("unknown", "hipMalloc: hipErrorOutOfMemory (2)")),
        (
            "corrupt",
            Health("sick", "what was written to it reads back wrong in 1 of 1048576 bytes"),
        ),
    ],
)
def test_an_amd_gpu_that_is_not_well(
    begin: Callable[..., Probe], state: str, health: Health
) -> None:
    gpus = amd(2, states={1: state})
    where = f"device 1 ({_pci(gpus, 1)})"
    assert begin(gpus, 2).result() == Health(health.state, f"{where}: {health.reason}")


def test_what_is_sick_outweighs_what_is_busy(begin: Callable[..., Probe]) -> None:
    assert begin(nvidia(3, states={0: "busy", 2: "sick"}), 3).result().state == "sick"


def test_a_driver_that_aborts_the_process(begin: Callable[..., Probe]) -> None:
    health = begin(amd(1, states={0: "sick"}), 1).result()
    assert health.state == "sick"
    assert health.reason.startswith("was ended by SIGABRT: Memory access fault by GPU node-2 ")


@pytest.mark.parametrize("make", [nvidia, amd])
def test_a_gpu_that_is_missing(begin: Callable[..., Probe], make: Any) -> None:
    name = {nvidia: "CUDA", amd: "HIP"}[make]
    assert begin(make(2, states={1: "missing"}), 2).result() == Health(
        "sick", f"{name} shows 1 of 2 GPUs"
    )


@pytest.mark.parametrize(
    ("make", "masks", "reason"),
    [
        (nvidia, {"CUDA_VISIBLE_DEVICES": "7"}, "cuInit: CUDA_ERROR_NO_DEVICE (100)"),
        (amd, {"ROCR_VISIBLE_DEVICES": "7"}, "hipInit: hipErrorNoDevice (100)"),
    ],
)
def test_a_mask_of_gpus_that_are_not_there(
    begin: Callable[..., Probe], make: Any, masks: dict[str, str], reason: str
) -> None:
    assert begin(make(1), 1, masks=masks).result() == Health("sick", reason)


def test_a_mig_instance(begin: Callable[..., Probe]) -> None:
    gpus = nvidia(1, mig=[0])
    assert gpus[0].mig is not None
    masks = {"CUDA_VISIBLE_DEVICES": gpus[0].mig[3].mig_uuid}
    assert begin(gpus, 1, masks=masks).result() == HEALTHY


class _Closed(cuda.Cuda):
    """A driver as it answers to whom its device files are closed: root may open all."""

    def __init__(self, count: int) -> None:
        self._count = count

    def start(self) -> int:
        if not self._count:
            raise driver.DriverError("cuInit", 100)
        return self._count


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with two device files, the second of which this process may not open."""
    _files(tmp_path / "dev", "nvidiactl", "nvidia-uvm")
    monkeypatch.setattr(own.os, "access", lambda path, _: not path.endswith("uvm"))
    return Machine(str(tmp_path))


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_is_known_without_permission(closed: Machine, count: int) -> None:
    found = driver.try_out(_Closed(count), closed, 2)
    path = closed.path("dev/nvidia-uvm")
    assert found == ("unknown", f"no permission to open {path}", ())


def test_closed_device_files(closed: Machine) -> None:
    assert driver.forbidden(closed, ["dev/absent", "dev/nvidiactl"]) == ""
    assert driver.forbidden(closed, ["dev/nvidiactl", "dev/nvidia-uvm"]) != ""


@pytest.mark.parametrize("make", [nvidia, amd])
def test_no_driver_library(begin: Callable[..., Probe], make: Any) -> None:
    name = {nvidia: "libcuda.so.1", amd: "libamdhip64.so.7"}[make]
    health = begin(make(1), 1, without=[name]).result()
    assert health.state == "unknown"
    assert health.reason.startswith("there is no ")


@pytest.mark.parametrize(
    ("behaviour", "health"),
    [
        (Behaviour(exits=999), Health("sick", "cuInit: CUDA_ERROR_UNKNOWN (999)")),
        (Behaviour(exits=304), Health("unknown", "cuInit: CUDA_ERROR_OPERATING_SYSTEM (304)")),
        (Behaviour(exits=12345), Health("unknown", "cuInit: error 12345")),
        (Behaviour(dies=signal.SIGSEGV), Health("sick", "was ended by SIGSEGV")),
        (Behaviour(dies=signal.SIGKILL), Health("unknown", "was ended by SIGKILL")),
    ],
)
def test_a_driver_that_does_not_start(
    begin: Callable[..., Probe], behaviour: Behaviour, health: Health
) -> None:
    assert begin(nvidia(1), 1, behaviours={"libcuda.so.1": behaviour}).result() == health


@pytest.mark.parametrize(
    ("gpus", "behaviours"),
    [
        (nvidia(1, states={0: "hung"}), {}),
        (amd(1, states={0: "hung"}), {}),
        (nvidia(1), {"libcuda.so.1": Behaviour(seconds=600, stubborn=True)}),
    ],
)
def test_a_gpu_that_hangs(begin: Callable[..., Probe], gpus: Any, behaviours: Any) -> None:
    killed: list[int] = []

    def kill(pid: int) -> None:
        killed.append(pid)
        KILL_GROUP(pid)

    began = time.monotonic()
    health = begin(gpus, 1, 2.0, kill, behaviours=behaviours).result()
    assert 1.5 < time.monotonic() - began < 30.0
    assert health == Health("sick", "timed out after 2 s")
    [pid] = killed
    assert not psutil.pid_exists(pid)


def test_a_probe_that_can_not_be_killed_is_given_up(begin: Callable[..., Probe]) -> None:
    killed: list[int] = []
    # A process in uninterruptible sleep can't be made here: this one is not sent the signal.
    started = begin(nvidia(1, states={0: "hung"}), 1, 2.0, killed.append)
    try:
        health = started.result()
        assert health.state == "sick"
        assert health.reason.startswith("timed out after 2 s; pid ")
        assert health.reason.endswith("does not end, not even by SIGKILL, and was left alone")
    finally:
        [pid] = set(killed)
        KILL_GROUP(pid)
        os.waitpid(pid, 0)


def test_starting_waits_for_nothing_and_the_answer_is_kept(begin: Callable[..., Probe]) -> None:
    slow = {"libcuda.so.1": Behaviour(seconds=1.0)}
    began = time.monotonic()
    started = begin(nvidia(1), 1, behaviours=slow)
    assert time.monotonic() - began < 0.9
    assert started.result() is started.result()
    assert started.result() == HEALTHY
    assert time.monotonic() - began >= 1.0


def test_a_probe_that_is_stopped_knows_nothing(begin: Callable[..., Probe]) -> None:
    started = begin(nvidia(1, states={0: "hung"}), 1)
    started.stop()
    assert started.result() == Health("unknown", "was ended by SIGKILL")
    started.stop()  # too late for anything


def test_an_interrupt_ends_the_probe(begin: Callable[..., Probe]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    started = begin(nvidia(1, states={0: "hung"}), 1)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            started.result()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    started.stop()
    assert started.result() == Health("unknown", "the wait for its answer was interrupted")


@pytest.mark.parametrize("action", [1, 2, 4, 9])
def test_the_recovery_action_of_nvml(begin: Callable[..., Probe], action: int) -> None:
    [gpu] = nvidia(1, recovery={0: action})
    text = {
        1: "to reset the GPU", 2: "to reboot the machine", 4: "to drain and reset the GPU",
        9: "to take action 9",
    }[action]  # fmt: skip
    assert begin([gpu], 1).result() == Health("sick", f"{gpu.pci}: NVML says {text}")


def test_ecc_errors_are_counted(begin: Callable[..., Probe]) -> None:
    gpus = nvidia(2, ecc={1: 3})
    started = begin(gpus, 2)
    assert started.result() == HEALTHY
    assert started.ecc == {gpus[0].pci: 0, gpus[1].pci: 3}


@pytest.mark.parametrize(
    "more",
    [
        {"without": ["libnvidia-ml.so.1"]},
        {"behaviours": {"libnvidia-ml.so.1": Behaviour(exits=18)}},
    ],
)
def test_without_nvml_the_driver_alone_counts(begin: Callable[..., Probe], more: Any) -> None:
    started = begin(nvidia(1, recovery={0: 1}, ecc={0: 3}), 1, **more)
    assert started.result() == HEALTHY
    assert started.ecc == {}


def test_gpus_of_others_have_no_probe() -> None:
    started = probe.start("intel", os.environ, 10.0, 1)
    assert started.result() == Health("unknown", "there is no probe for these GPUs")
    started.stop()


@pytest.mark.parametrize(
    "printed",
    ["", "[]", '{"answer": 1}', '{"answer": {"state": "well"}}', '{"failed": "no answer came"}'],
)
def test_an_answer_that_makes_no_sense(printed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", f"print({printed!r})"]
    monkeypatch.setattr(probe, "light_interpreter", lambda *_: command)
    assert probe.start("nvidia", os.environ, _LIMIT, 1).result().state == "unknown"


def test_an_interpreter_that_can_not_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    health = probe.start("nvidia", os.environ, _LIMIT, 1).result()
    assert health.state == "unknown"
    assert health.reason.startswith("can't be started: ")


def test_variables_of_python_and_ours_do_not_matter(
    begin: Callable[..., Probe], tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(1)")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit(1)")
    masks = {"PYTHONPATH": str(tmp_path), "PYTHONWARNINGS": "error", "FKIT_PORTABLE": "1"}
    assert begin(nvidia(1), 1, masks=masks).result() == HEALTHY


_PARENT = """\
import os, sys
from pytest_fkit.gpu.health import probe
started = probe.start("nvidia", os.environ, 600, 1)
print(started._process._process.pid, flush=True)
sys.stdin.read()
"""


def test_a_probe_ends_with_its_worker(fleet: MakeFleet) -> None:
    machine = fleet(nvidia(1, states={0: "hung"}))
    worker = subprocess.Popen(
        [sys.executable, "-c", _PARENT], env={**os.environ, **machine},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert worker.stdout is not None
    with worker, contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(int(worker.stdout.readline()))
        worker.kill()
        started.wait(60)


# --- where HIP's library is ---------------------------------------------------------------------


def _files(directory: Path, *names: str) -> str:
    directory.mkdir(parents=True)
    for name in names:
        (directory / name).touch()
    return str(directory)


def test_where_hip_is_looked_for(tmp_path: Path) -> None:
    rocm = _files(tmp_path / "rocm/lib", "libamdhip64.so", "libamdhip64.so.6", "libamdhip64.so.10")
    own = _files(tmp_path / "root/opt/rocm/lib", "libamdhip64.so.6", "libamdhip64.so.6.4.1")
    _files(tmp_path / "root/lib", "libamdhip64.so.6")
    wheel = _files(tmp_path / "torch/lib", "libamdhip64.so", "libtorch.so")
    environ = {"ROCM_PATH": str(tmp_path / "rocm")}
    found = list(hip.candidates(Machine(str(tmp_path / "root")), environ, ["/nowhere", wheel]))
    assert found == [
        f"{rocm}/libamdhip64.so.10",
        f"{rocm}/libamdhip64.so.6",
        f"{rocm}/libamdhip64.so",
        "libamdhip64.so.6",
        f"{own}/libamdhip64.so.6",
        f"{wheel}/libamdhip64.so",
    ]


def test_a_wheel_is_found_and_not_imported(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise SystemExit(1)")
    assert amd_vendor.wheel_directories([str(tmp_path)]) == [str(tmp_path / "torch/lib")]
    assert amd_vendor.wheel_directories([]) == []


def test_the_library_of_a_wheel_is_used(
    begin: Callable[..., Probe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started = begin(amd(1), 1)
    assert started.result() == HEALTHY
    library = Path(os.environ[ROOT], "lib/libamdhip64.so.7")
    (tmp_path / "torch/lib").mkdir(parents=True)
    (tmp_path / "torch/__init__.py").touch()
    library.rename(tmp_path / "torch/lib/libamdhip64.so")
    environ = {**os.environ, **environment(Path(os.environ[ROOT]))}
    assert probe.start("amd", environ, _LIMIT, 1).result().state == "unknown"
    monkeypatch.syspath_prepend(str(tmp_path))
    assert probe.start("amd", environ, _LIMIT, 1).result() == HEALTHY
