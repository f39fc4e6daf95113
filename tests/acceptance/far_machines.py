"""Two machines, n1 and n2, by each engine: all on this one, and all of them can be lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path
from typing import Callable, ContextManager, Iterable, Iterator, Mapping, NamedTuple

import far_client
import psutil
import pytest
from slurm_cluster import MISSING, Cluster, cluster
from sshd_server import SSHD, sshd

NO_VARIABLES: Mapping[str, str] = {}


class Machines(NamedTuple):
    """Two machines.

    :param option: value of ``--fkit-machines``.
    :param environ: of the run.
    :param cut: ends the connection of a worker, given by its pid and its step.
    :param leave: takes both machines away.
    :param steps: what of the engine's is left.
    :param slurm: what they are nodes of, None for none.
    """

    option: str
    environ: Mapping[str, str]
    cut: Callable[[int, str], None]
    leave: Callable[[], None]
    steps: Callable[[], list[str]] = list
    slurm: Cluster | None = None


@contextlib.contextmanager
def by_slurm(directory: Path, environ: Mapping[str, str] = NO_VARIABLES) -> Iterator[Machines]:
    """The nodes of a job that outlives one of them."""
    if MISSING:
        pytest.skip(f"needs Slurm: no {', '.join(MISSING)}")
    with cluster(directory) as slurm, slurm.allocated("--no-kill") as variables:
        job = variables["SLURM_JOB_ID"]
        yield Machines(
            "slurm",
            {**environ, **variables},
            lambda _, step: print(slurm.call("scancel", "--signal=KILL", f"{job}.{step}")),
            lambda: print(slurm.call("scancel", job)),
            lambda: slurm.steps(job),
            slurm,
        )


@contextlib.contextmanager
def by_ssh(directory: Path, environ: Mapping[str, str] = NO_VARIABLES) -> Iterator[Machines]:
    """Two names of an OpenSSH server, and two more for connections that jump."""
    if not (SSHD and shutil.which("ssh")):
        pytest.skip("needs OpenSSH's server and client")
    with sshd(directory, environ, ("n1", "n2", "jump-n1", "jump-n2")) as server:
        client = directory / "ssh"
        client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {server.client} "$@"\n')
        client.chmod(0o755)

        def leave() -> None:
            # Of each connection the server has processes, and there is a client.
            _kill(tree(server.pid), lambda each: each.name().startswith("sshd"))
            _kill_commands(str(server.client))

        path = environ.get("PATH", os.environ.get("PATH", ""))
        variables = {**environ, "PATH": f"{directory}{os.pathsep}{path}"}
        yield Machines("ssh:n1,n2", variables, _cut, leave)


@contextlib.contextmanager
def by_command(directory: Path, environ: Mapping[str, str] = NO_VARIABLES) -> Iterator[Machines]:
    """Files, which a command of ours takes for machines."""
    names = [directory / name for name in ("n1", "n2")]
    for each in names:
        each.touch()

    def leave() -> None:
        for each in names:
            each.unlink()
        for each in names:
            _kill_commands(str(each))

    command = f"{sys.executable} {far_client.__file__} {directory}/{{machine}} 0 {{python}}"
    yield Machines(f"exec:n1,n2 {command}", environ, _cut, leave)


ENGINES = (by_slurm, by_ssh, by_command)


@pytest.fixture(params=ENGINES)
def by_each_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machines]:
    """To be assigned to a name in the module that wants it."""
    engine: Callable[[Path], ContextManager[Machines]] = request.param
    with engine(tmp_path_factory.mktemp("machines")) as found:
        yield found


def tree(pid: int) -> list[psutil.Process]:
    """A process, and those that it has started; nothing if it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cut(pid: int, _: str) -> None:
    """Kill what connects a worker with its controller: what has started it."""
    psutil.Process(pid).parent().kill()


def _kill_commands(word: str) -> None:
    """Kill all processes that have a word in their command."""
    _kill(psutil.process_iter(), lambda each: word in each.cmdline())


def _kill(processes: Iterable[psutil.Process], chosen: Callable[[psutil.Process], bool]) -> None:
    for each in processes:
        with contextlib.suppress(psutil.Error):  # it is gone
            if chosen(each):
                each.kill()
