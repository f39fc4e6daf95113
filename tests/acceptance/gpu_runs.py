"""Inner runs on machines with GPUs that do not exist, and what their workers saw."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

from inner import InnerRun, run_pytest, write_files

NAMES = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK",
    "ASCEND_RT_VISIBLE_DEVICES",
    "FKIT_WORKER_ID",
    "FKIT_GPU_IDS",
    "FKIT_PORT_BASE",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
    "TF_FORCE_GPU_ALLOW_GROWTH",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "FKIT_THREADS",
    "MASTER_PORT",
    "MINE",
)

_LOOK = f"""\
import os
SEEN = {{name: os.environ[name] for name in {NAMES!r} if name in os.environ}}
"""

SUITE = {
    "early_plugin.py": _LOOK,
    "conftest.py": f"import early_plugin\n{_LOOK}",
    "test_seen.py": f"""\
{_LOOK}
import json, os, signal, time
from pathlib import Path
import pytest
import conftest, early_plugin

WORKER = os.getpid()
HERE = Path(os.environ["SEEN_IN"])

@pytest.mark.fkit(gpus=0 if "SEEN_ANYWHERE" in os.environ else None)
@pytest.mark.parametrize("number", range(int(os.environ.get("SEEN_TESTS", "1"))))
def test_it(number, fkit_gpus, fkit_worker, fkit_port):
    name = os.environ.get("PYTEST_XDIST_WORKER", "main")
    now = {{name: os.environ[name] for name in SEEN}}
    seen = dict(
        name=name, gpus=fkit_gpus, worker=fkit_worker, port=fkit_port, environ=SEEN,
        same=[early_plugin.SEEN == SEEN, conftest.SEEN == SEEN, now == SEEN], host_pid=WORKER,
        kind=os.environ.get("SEEN_KIND", ""),
    )
    (HERE / f"{{name}}-{{os.getpid()}}.json").write_text(json.dumps(seen))
    deaths = os.environ.get("SEEN_DEATHS", "").split()
    if str(number) in deaths:
        os.kill(WORKER, signal.SIGKILL)
    # Every worker is to have its turn.
    workers = int(os.environ.get("SEEN_WORKERS", "1"))
    deadline = time.monotonic() + 60
    while len({{each.name.split("-")[0] for each in HERE.glob("*.json")}}) < workers:
        assert time.monotonic() < deadline
        time.sleep(0.01)
""",
}


@dataclass(frozen=True)
class Seen:
    """What the tests of one worker saw.

    :param environ: the variables of NAMES when the test module was imported.
    :param same: whether they were the same when a plugin of ``-p`` was imported, when the
        conftest.py was, and in the test.
    """

    name: str
    gpus: list[str]
    worker: int
    port: int
    environ: dict[str, str]
    same: list[bool]
    host_pid: int
    kind: str


@dataclass(frozen=True)
class GpuRun:
    """A run that has ended, and what its workers saw, by name."""

    inner: InnerRun
    seen: dict[str, Seen]

    @property
    def header(self) -> list[str]:
        """Our lines of the header."""
        return [line for line in self.inner.lines if line.startswith("fkit: ")]


def run_on(
    machine: Mapping[str, str],
    directory: Path,
    *arguments: str,
    workers: int = 1,
    tests: int = 0,
    env: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
) -> GpuRun:
    """Run the suite that tells what its tests see.

    :param machine: environment variables, as the fixture ``fleet`` gives them.
    :param workers: how many workers have to run a test before any of them ends.
    :param tests: how many tests there are, by default enough for these.
    """
    write_files(directory, {**SUITE, **(files or {})})
    found = directory / "seen"
    found.mkdir()
    environ = {
        **machine,
        "SEEN_IN": str(found),
        "SEEN_TESTS": str(tests or 2 * workers),
        "SEEN_WORKERS": str(workers),
        **(env or {}),
    }
    ended = run_pytest(
        directory, "--fkit", "-p", "early_plugin", *arguments, env={"PYTHONPATH": ".", **environ}
    )
    seen: dict[str, Seen] = {}
    for path in sorted(found.glob("*.json")):
        one = Seen(**json.loads(path.read_text()))
        seen.setdefault(one.name, one)
    return GpuRun(ended, seen)


def masks(seen: Seen, *names: str) -> Any:
    """The values of variables, without their ends: ``CUDA`` is CUDA_VISIBLE_DEVICES."""
    found = tuple(seen.environ.get(f"{name}_VISIBLE_DEVICES") for name in names)
    return found[0] if len(found) == 1 else found
