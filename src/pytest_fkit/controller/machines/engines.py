"""How a Python is started on another machine: by which command, in which of execnet's terms."""

from __future__ import annotations

import re
import shlex
import sys
from typing import Mapping, Sequence

from ...config.machine_option import MACHINE, PYTHON, Machines
from ...named_tuple import NamedTuple
from ...own import own_builtins
from ..schedule.machines import MACHINE_KEY

own_builtins(globals())


class Engine(NamedTuple):
    """A way to reach machines.

    :param command: by words, with fields in braces; a word that is ``{python}`` stands for
        several, and within a word it is quoted for a shell.
    :param cancel: the command that ends what the other one has started, "" for none; it knows the
        step by what the machine answers.
    """

    command: tuple[str, ...]
    cancel: tuple[str, ...] = ()


_GPUS = "{gpus}"
_ASK_NOTHING = "-oBatchMode=yes"  # ssh_config(5)

_OF_TASKS = (
    "NTASKS", "NPROCS", "NTASKS_PER_NODE", "NTASKS_PER_GPU", "CPUS_PER_TASK", "GPUS_PER_TASK",
    "TRES_PER_TASK", "GPUS_PER_NODE", "GPUS",
)  # fmt: skip

ENGINES = {
    "ssh": Engine(
        ("ssh", "-T", _ASK_NOTHING, "-oConnectTimeout={seconds}", MACHINE, f"exec {PYTHON}")
    ),
    # srun(1). The step gets all that the job has on the node, as do the others there; without the
    # variables by which the job's options are the step's, which is one task. In a job with --gpus
    # or GPUs for each task a step has to say which, or it is refused, or gets those of one task.
    "slurm": Engine(
        ("env", *(each for name in _OF_TASKS for each in ("-u", f"SLURM_{name}")),
         "srun", "--unbuffered", "--overlap", "--exact", "--nodes=1", "--ntasks=1",
         "--cpus-per-task={cpus}", "--gpus={gpus}", "--mem=0", "--mpi=none",
         f"--nodelist={MACHINE}", PYTHON),
        ("scancel", "--signal=KILL", "{step}"),
    ),
}  # fmt: skip
"""By name; the third, exec, has the command that the user gives."""


class Target(NamedTuple):
    """A machine.

    :param command: which starts a Python there, by words, with ``{python}``.
    :param cancel: see :class:`Engine`.
    """

    name: str
    command: tuple[str, ...]
    cancel: tuple[str, ...] = ()


def target(wanted: Machines, name: str, seconds: float, cpus: int = 0, gpus: str = "") -> Target:
    """One of the machines that the user wants.

    :param seconds: in which it has to be reached.
    :param cpus: that a Slurm job has there.
    :param gpus: how many GPUs its step has to ask for, as in "2" or "a100:2"; "" for what it gets.
    """
    engine = ENGINES.get(wanted.engine, Engine(wanted.command))
    fields = {MACHINE: _with_port(name) if wanted.engine == "ssh" else name}
    if wanted.engine != "exec":
        fields.update({"{seconds}": f"{max(1, round(seconds))}", "{cpus}": str(cpus)})
        fields[_GPUS] = gpus
    words = engine.command
    if wanted.engine == "slurm" and not gpus:
        words = tuple(each for each in words if _GPUS not in each)
    return Target(name, tuple(_filled(each, fields) for each in words), engine.cancel)


def _with_port(name: str) -> str:
    """A machine's name as ssh(1) takes it: with a port it has to be a URI."""
    return f"ssh://{name}" if re.fullmatch(r"([^:]+|.*\]):\d+", name) else name


def _filled(text: str, fields: Mapping[str, str]) -> str:
    for field, value in fields.items():
        text = text.replace(field, value)
    return text


_BOOTSTRAP = "import sys;exec(eval(sys.stdin.readline()))"
"""What execnet runs in a Python that it has started: its first line is a program."""


def command(reached: Target, python: Sequence[str]) -> list[str]:
    """The command that starts a Python there that waits for execnet's program."""
    return starting(reached, [*python, "-u", "-c", _BOOTSTRAP])


def starting(reached: Target, words: Sequence[str]) -> list[str]:
    found: list[str] = []
    for each in reached.command:
        found += words if each == PYTHON else [each.replace(PYTHON, shlex.join(words))]
    return found


def by_hand(reached: Target, python: Sequence[str]) -> list[str]:
    """The command by which a user may try the Python there; it may ask for things."""
    return [each for each in starting(reached, [*python, "-V"]) if each != _ASK_NOTHING]


def cancelling(reached: Target, step: str) -> list[str]:
    """The command that ends a step there, empty if there is none."""
    return [each.replace("{step}", step) for each in reached.cancel] if step else []


# In a session of its own: Ctrl-C is for the controller, who has the workers tear down first. What
# execnet adds to a command, its own -u -c, is left away, since the command has it, quoted.
_CLIENT = """\
import os, signal, sys
note, errors, *words = sys.argv[1:-3]
os.setsid()
with open(note, "w") as file:
    file.write(str(os.getpid()))
if errors:
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
try:
    os.execvp(words[0], words)
except OSError as error:
    sys.exit(words[0] + ": " + error.strerror)
"""


def specification(reached: Target, python: Sequence[str], note: str, errors: str) -> str:
    """The ``--tx`` of a worker there.

    :param note: path of the file in which the local end of the connection notes its pid.
    :param errors: path of the file that gets what that says, "" for standard error.
    """
    client = [sys.executable, "-I", "-S", "-c", _CLIENT, note, errors, *command(reached, python)]
    # execnet separates keys by two slashes, and takes a command apart as a shell does.
    text = re.sub("/(?=/)", "/''", shlex.join(client))
    return f"popen//{MACHINE_KEY}={reached.name}//python={text}"


# --- slurm ----------------------------------------------------------------------------------------


def cpus_of_nodes(text: str) -> list[int]:
    """How many CPUs a job has on each of its nodes, from Slurm's "2(x2),4"."""
    found: list[int] = []
    for number, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        found += [int(number)] * int(times or 1)
    return found


def gpus_of_nodes(details: str) -> dict[str, str]:
    """How many GPUs a job has, by list of nodes, where a step has to say so.

    :param details: what ``scontrol show job --details`` says, as in "TresPerJob=gres:gpu:2" and in
        "Nodes=n[1-2] CPU_IDs=0-1 Mem=500 GRES=gpu:a100:2(IDX:0-1)".
    """
    if not re.search(r"\bTresPer(Job|Socket|Task)=\S*gpu", details):
        return {}  # what it has for each node a step inherits
    found = re.findall(r"^ *Nodes=(\S+) .*\bGRES=(\S*)", details, re.MULTILINE)
    return {
        nodes: ",".join(re.findall(r"\bgpu:((?:[^:,(]+:)?\d+)", gres)) or "0"
        for nodes, gres in found
    }
