"""Questions and orders to a new gateway, before pytest starts in it.

Imports nothing of ours: it is sent to the gateway as source.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any, Callable

# In a process of its own, which can be abandoned if it hangs; and pytest warns of plugins that are
# imported before it can rewrite them.
_DETECT = (
    "import json, sys; "
    "from pytest_fkit.gpu.devices import to_wire; "
    "from pytest_fkit.gpu.vendors.detection import detect; "
    "print('fkit' + json.dumps(to_wire(detect(float(sys.argv[1])))))"
)

_START = 5.0
"""Seconds for the interpreter of that process."""


# A socket server's process serves one run after the other, each with an environment of its own.
_INHERITED: dict[str, str | None] = sys.__dict__.setdefault("_fkit_inherited", {})


def answer(names: list[str], limit: float) -> dict[str, Any]:
    """What the controller needs to know about this process and its machine.

    :param limit: seconds for detection, 0 if the GPUs of this machine are known.
    """
    _restore()
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cores = os.cpu_count() or 1
    fleet, problem = _detect(limit) if limit else (None, "")
    return {
        "environ": {name: os.environ[name] for name in names if name in os.environ},
        "pid": os.getpid(),
        "began": _began(os.getpid()),
        "step": _step(),
        "cores": cores,
        "fleet": fleet,
        "problem": problem,
    }


def _began(pid: int) -> str:
    """When a process began, so that no other one is taken for it; "" if it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 (stands alone)
            return file.read().rpartition(") ")[2].split()[19]  # proc(5)
    except (OSError, IndexError):
        return ""


def _step() -> str:
    """The Slurm step that this process belongs to, "" if to none."""
    job, step = (os.environ.get(f"SLURM_{name}_ID", "") for name in ("JOB", "STEP"))
    return f"{job}.{step}" if job and step else ""


def end(pid: int, began: str) -> None:
    """Kill a process that was a worker of this run, unless it is gone."""
    if began and _began(pid) == began:
        os.kill(pid, signal.SIGKILL)


def _detect(limit: float) -> tuple[str | None, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _DETECT, str(limit)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=limit + _START)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, f"detection did not end within {limit + _START:g} s"
    for line in out.decode("utf-8", "replace").splitlines():
        if line.startswith("fkit"):
            return line[len("fkit") :], ""
    return None, (err.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1]


def set_environment(told: dict[str, str]) -> None:
    """Set environment variables, for this run."""
    _INHERITED.update({name: os.environ.get(name) for name in told})
    os.environ.update(told)


def _restore() -> None:
    while _INHERITED:
        name, text = _INHERITED.popitem()
        os.environ.pop(name, None)
        if text is not None:
            os.environ[name] = text


if __name__ == "__channelexec__":
    _channel: Any = globals()["channel"]
    _command, *_arguments = _channel.receive()
    _functions: dict[str, Callable[..., object]] = {
        "answer": answer,
        "set": set_environment,
        "end": end,
    }
    _channel.send(_functions[_command](*_arguments))
