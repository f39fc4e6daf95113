"""A Slurm of two nodes on this machine: slurmctld, two slurmd and munged, on the loopback."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping

from inner_runs import wait_until

NODES = ("n1", "n2")

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "salloc", "scontrol", "scancel")

MISSING = [name for name in PROGRAMS if not shutil.which(name, path=_PATH)]
"""What keeps tests from having one: of Debian these are slurmctld, slurmd, slurm-client, munge."""

# Character devices that stand for GPUs; nobody opens them.
_CONFIGURATION = """\
ClusterName=fkit
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
CredType=cred/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/%n.spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/builtin
MpiDefault=none
GresTypes=gpu
ReturnToService=2
SwitchType=switch/none
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
KillWait=2
SlurmdTimeout=10
NodeName=DEFAULT CPUs=2 RealMemory=500 Gres=gpu:2
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]}
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]}
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8
"""

_GRES = """\
NodeName=n1 Name=gpu File=/dev/null
NodeName=n1 Name=gpu File=/dev/zero
NodeName=n2 Name=gpu File=/dev/full
NodeName=n2 Name=gpu File=/dev/urandom
"""


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs.

    :param environ: of its clients.
    """

    directory: Path
    environ: Mapping[str, str]

    def call(self, *command: str) -> str:
        """What one of Slurm's commands prints."""
        ended = subprocess.run(
            command,
            env={**os.environ, **self.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        return ended.stdout.decode()

    @contextlib.contextmanager
    def allocated(self, *options: str) -> Iterator[dict[str, str]]:
        """A job on both nodes with all their GPUs; the environment of what is run in it."""
        said = self.call("salloc", "--no-shell", "--nodes=2", "--gpus=4", "-c2", *options)
        job = said.partition("Granted job allocation ")[2].split()[0]
        try:
            yield {
                **self.environ,
                "SLURM_JOB_ID": job,
                "SLURM_JOB_NODELIST": "n[1-2]",
                "SLURM_JOB_NUM_NODES": "2",
                "SLURM_JOB_CPUS_PER_NODE": "2(x2)",
                "SLURM_GPUS": "4",
            }
        finally:
            self.call("scancel", job)

    def steps(self, job: str) -> list[str]:
        """The steps of a job that run, as in "7.0 n1"."""
        return self.call(
            "squeue", "--steps", f"--jobs={job}", "--noheader", "--format=%i %N"
        ).splitlines()

    def pid(self, name: str) -> int:
        """That of a daemon: a node's, or slurmctld's."""
        return int((self.directory / f"{name}.pid").read_text())

    def start_node(self, name: str) -> None:
        _start(self.environ, "slurmd", "-N", name)


def _start(environ: Mapping[str, str], *command: str) -> None:
    program = shutil.which(command[0], path=_PATH)
    assert program is not None
    subprocess.run(
        [program, *command[1:]], env={**os.environ, **environ}, check=True, timeout=60,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


@contextlib.contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    """A cluster, and nothing of it after the block."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    text = _CONFIGURATION.format(ports=_free_ports(3), user=user, directory=directory)
    (directory / "slurm.conf").write_text(text)
    (directory / "gres.conf").write_text(_GRES)
    (directory / "state").mkdir()
    key = directory / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    made = Cluster(directory, {"SLURM_CONF": str(directory / "slurm.conf")})
    try:
        names = {"key": "key", "socket": "socket", "pid": "pid", "log": "log", "seed": "seed"}
        files = [f"--{name}-file={directory}/munge.{name}" for name in names if name != "socket"]
        _start({}, "munged", "--force", f"--socket={directory}/munge.socket", *files)
        _start(made.environ, "slurmctld", "-c")
        for node in NODES:
            made.start_node(node)
        ready = wait_until(
            lambda: made.call("sinfo", "--noheader", "--format=%D%t").strip() == "2idle", 30
        )
        assert ready, made.call("sinfo") + (directory / "slurmctld.log").read_text()
        yield made
    finally:
        made.call("scancel", "--state=RUNNING")
        # Without the daemons nobody would end what is left of the steps of a test that has failed.
        wait_until(lambda: not made.call("squeue", "--noheader"), 10)
        for name in (*NODES, "slurmctld", "munge"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(made.pid(name), signal.SIGKILL)
