"""The vendors' programs, on a machine that does not exist; run as programs of their own."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from .description import Description, Gpu, from_json


def install(root: Path, names: tuple[str, ...]) -> None:
    """Write them into ``bin``."""
    (root / "bin").mkdir(exist_ok=True)
    start = root / "bin" / ".start.py"
    start.write_text(
        f"import sys\n"
        f"sys.path[:0] = [{str(Path(__file__).resolve().parents[1])!r}]\n"
        f"from fleet.programs import main\n"
        f"main()\n"
    )
    for name in names:
        program = root / "bin" / name
        # A shell script: the path of an interpreter may be too long for a first line.
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{start}" {name} "{root}" "$@"\n')
        program.chmod(0o755)


def main() -> None:
    """Be the program that is the first argument, on the machine that is the second."""
    name, root, *arguments = sys.argv[1:]
    description = from_json((Path(root) / "fleet.json").read_text())
    behaviour = description.behaviours.get(name)
    if behaviour is not None:
        if behaviour.stubborn:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(behaviour.seconds)
        while behaviour.endless:
            print("no end" * 10000)
        if behaviour.prints is not None:
            print(behaviour.prints)
        sys.stdout.flush()
        if behaviour.dies:
            os.kill(os.getpid(), behaviour.dies)
        if behaviour.also:
            _PROGRAMS[name](description, arguments)
            print(behaviour.also)
        if behaviour.also or behaviour.exits or behaviour.prints is not None:
            sys.exit(behaviour.exits)
    _PROGRAMS[name](description, arguments)


def _nvidia_smi(description: Description, arguments: list[str]) -> None:
    """Formats: nvidia-smi(1), NVIDIA's MIG User Guide."""
    gpus = sorted(description.of("nvidia"), key=lambda gpu: gpu.smi)
    if not gpus:
        print("No devices were found")
        sys.exit(6)
    for gpu in gpus:
        if arguments == ["-L"]:
            print(f"GPU {gpu.smi}: {gpu.name} (UUID: {gpu.uuid})")
            for number, instance in enumerate(gpu.mig or ()):
                profile = instance.mig_name.split()[-1]
                print(f"  MIG {profile}     Device  {number}: (UUID: {instance.mig_uuid})")
        elif arguments[0].startswith("--query-gpu="):
            print(", ".join(_queried(gpu, field) for field in arguments[0][12:].split(",")))


def _queried(gpu: Gpu, field: str) -> str:
    answers = {
        "index": str(gpu.smi),
        "uuid": gpu.uuid,
        "pci.bus_id": f"0000{gpu.pci.upper()}",
        "name": gpu.name,
        "memory.total": str(gpu.memory >> 20),
        "mig.mode.current": "Disabled" if gpu.mig is None else "Enabled",
    }
    if gpu.state == "lost" and field not in ("index", "uuid", "pci.bus_id"):
        return "[GPU is lost]"
    return answers[field]


def _xpu_smi(description: Description, arguments: list[str]) -> None:
    """Format: Intel XPU System Management Interface User Guide.

    It is a Level Zero program, and sees what ZE_AFFINITY_MASK leaves, numbered from 0.
    """
    gpus = sorted(description.of("intel"), key=lambda gpu: gpu.pci)
    mask = os.environ.get("ZE_AFFINITY_MASK")
    if mask:
        gpus = [gpus[int(entry)] for entry in mask.split(",")]
    devices = [
        {
            "device_function_type": "physical",
            "device_id": number,
            "device_name": gpu.name,
            "device_type": "GPU",
            "drm_device": f"/dev/dri/card{gpu.render - 128}",
            "pci_bdf_address": gpu.pci,
            "pci_device_id": "0xbd5",
            "uuid": gpu.uuid,
            "vendor_name": "Intel(R) Corporation",
        }
        for number, gpu in enumerate(gpus)
    ]
    print(json.dumps({"device_list": devices}, indent=4))


def _npu_smi(description: Description, arguments: list[str]) -> None:
    """Format: Ascend's npu-smi Command Reference, ``npu-smi info -m``."""
    columns = ("NPU ID", "Chip ID", "Chip Logic ID", "Chip Name")
    rows = [columns]
    for gpu in description.of("ascend"):
        rows.append((str(gpu.smi), "0", str(gpu.ordinal), gpu.name))
        rows.append((str(gpu.smi), "1", "-", "Mcu"))
    for row in rows:
        print("\t" + "".join(f"{cell:<31}" for cell in row))


_PROGRAMS = {
    "nvidia-smi": _nvidia_smi,
    "xpu-smi": _xpu_smi,
    "npu-smi": _npu_smi,
}
