"""Launchers, which give the GPUs of a machine to the ranks that they start."""

from __future__ import annotations

import re
from typing import Mapping

from ...named_tuple import NamedTuple
from ...own import own_builtins

own_builtins(globals())


class _Launcher(NamedTuple):
    """The variables by which a launcher tells a rank its number on its machine.

    :param sizes: those that say how many there are on the machine, or at least in all.
    :param needs_size: whether the rank alone, without a size, means nothing.
    """

    name: str
    rank: str
    sizes: tuple[str, ...]
    needs_size: bool = False


# torchrun: torch/distributed/elastic/agent/server/local_elastic_agent.py; DeepSpeed's launcher:
# deepspeed/launcher/launch.py (LOCAL_SIZE). Open MPI's, MPICH's and Intel MPI's (Hydra), MVAPICH's
# as their documentation has them. Slurm's srun(1), output environment variables: those of a step,
# since a batch script alone has SLURM_LOCALID, too.
_LAUNCHERS = (
    _Launcher("mpirun", "OMPI_COMM_WORLD_LOCAL_RANK", ("OMPI_COMM_WORLD_LOCAL_SIZE",)),
    _Launcher("mpirun", "MPI_LOCALRANKID", ("MPI_LOCALNRANKS",)),
    _Launcher("mpirun", "MV2_COMM_WORLD_LOCAL_RANK", ("MV2_COMM_WORLD_LOCAL_SIZE",)),
    _Launcher("srun", "SLURM_LOCALID", ("SLURM_STEP_TASKS_PER_NODE",), needs_size=True),
    _Launcher("torchrun", "LOCAL_RANK", ("LOCAL_WORLD_SIZE", "LOCAL_SIZE", "WORLD_SIZE")),
)


def rank_of(environ: Mapping[str, str]) -> str:
    """The rank, as in "LOCAL_RANK=2 of 8 (torchrun)"; "" for a process alone on its machine."""
    for launcher in _LAUNCHERS:
        rank = environ.get(launcher.rank, "")
        if not rank.isdigit():
            continue
        size = next((_size(environ[each]) for each in launcher.sizes if each in environ), 0)
        if size > 1:
            return f"{launcher.rank}={rank} of {size} ({launcher.name})"
        if not size and not launcher.needs_size:
            return f"{launcher.rank}={rank} ({launcher.name})"
    return ""


def _size(text: str) -> int:
    """The most ranks on a machine, from "8", or Slurm's "8(x2),4"."""
    return max((int(each) for each in re.findall(r"(?<!x)\b\d+", text)), default=0)
