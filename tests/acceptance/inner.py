"""Runs pytest on a small suite, in processes of its own, and reads what it says.

What an inner run is started with is said here alone: ``inner_runs`` watches and interrupts such
runs, ``recorded_runs`` reads what their controllers heard, ``comparing`` what differs from plain
pytest.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Mapping, Sequence

import psutil

_SUMMARY = re.compile(
    r"^(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)(?: after \d+ attempts)? (\S+)(?: - (.*))?$"
)

WITHOUT_HYPOTHESIS = "-p no:hypothesispytest"
"""PYTEST_ADDOPTS of inner runs: its plugin imports all of it for the summary, a third of a second
in each process."""

# What the outer run leaves in the environment, and what changes pytest's short summary.
_FOREIGN = (
    "PYTEST_", "FKIT_", "TOX_", "CI", "BUILD_NUMBER", "COV_", "GITHUB_",
    "PYTHONUNBUFFERED",
    # Of a machine with GPUs.
    "CUDA_", "HIP_VISIBLE", "ROCR_VISIBLE", "ZE_AFFINITY", "ASCEND_RT_VISIBLE",
)  # fmt: skip


@dataclass(frozen=True)
class InnerRun:
    """A run of pytest that has ended."""

    status: int
    out: str
    err: str

    @cached_property
    def lines(self) -> list[str]:
        """What it wrote to standard output."""
        return self.out.splitlines()

    @cached_property
    def reported(self) -> list[tuple[str, str, str]]:
        """Outcome, node id and message of each line of the short summary (``-rA``)."""
        matches = (_SUMMARY.match(line) for line in self.lines)
        return [(match[1], match[2], match[3] or "") for match in matches if match]

    @property
    def outcomes(self) -> dict[str, str]:
        """Outcome by node id; every test is reported once."""
        found = {nodeid: outcome for outcome, nodeid, _ in self.reported}
        assert len(found) == len(self.reported), self.out
        return found

    def message(self, nodeid: str) -> str:
        """What the short summary says about a test."""
        [message] = [text for _, found, text in self.reported if found == nodeid]
        return message


def command(*args: str) -> list[str]:
    """What starts pytest in an interpreter of its own."""
    return [sys.executable, "-m", "pytest", *args]


def environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """What an inner run finds in its environment, the same wherever the outer run is.

    :param env: what it is to have besides, or instead.
    """
    given = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    ours = {"PYTEST_ADDOPTS": WITHOUT_HYPOTHESIS, "FKIT_STACKS": "python"}
    return {**given, **ours, **(env or {})}


def run_pytest(
    directory: Path,
    *args: str,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
    ulimit: str = "",
) -> InnerRun:
    """Run pytest in `directory`, with ``-rA`` and nothing else that was not asked for.

    :param ulimit: options of the shell's command, under which it runs.
    """
    limited = ["sh", "-c", f'ulimit {ulimit} && exec "$@"', "sh"] if ulimit else []
    return run_to_its_end(
        [*limited, *command("-rA", *args)],
        directory,
        environment({"COLUMNS": "500", "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}),
        timeout,
    )


def run_to_its_end(
    started: Sequence[str], directory: Path, env: Mapping[str, str], timeout: float
) -> InnerRun:
    """Run a command; one that takes longer than `timeout` seconds fails with all that is known.

    That is its output, its processes, and, of a pytest with ``--fkit``, what runs now: a hang that
    is seen once in a thousand runs is explained then or never.
    """
    process = subprocess.Popen(
        started, cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, encoding="utf-8", errors="replace",
    )  # fmt: skip
    late = ""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        late, out, err = _ended_by_force(process)
    assert not late, f"not over after {timeout} s\n{late}\n{out}\n{err}"
    return InnerRun(process.returncode, out, err)


def _ended_by_force(process: subprocess.Popen[str]) -> tuple[str, str, str]:
    """Ask a run what it does, and end it.

    :returns: its processes, a line each, and what it wrote.
    """
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    lines = []
    for one in family:
        with contextlib.suppress(psutil.Error, OSError):
            waits = Path(f"/proc/{one.pid}/wchan").read_text()
            with one.oneshot():
                told = f"{one.ppid()} {one.status()} {waits} {' '.join(one.cmdline())}"
            lines.append(f"{one.pid} of {told}")
    process.send_signal(signal.SIGUSR1)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=5)
    for one in family:
        with contextlib.suppress(psutil.Error):
            one.kill()
    return ("\n".join(lines), *process.communicate())


def write_files(directory: Path, files: Mapping[str, str]) -> Path:
    """Write text files, by their paths below `directory`."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return directory
