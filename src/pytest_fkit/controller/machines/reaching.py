"""Asks other machines, before any test is run, whether they can run tests of this run."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

import execnet
import pytest

from ...config.deadline import Deadline
from ...config.machine_option import Machines
from ...config.settings import MachineSettings
from ...gpu.answers import FailedError
from ...gpu.slices import handshake
from ...gpu.throwaway import output_of
from ...named_tuple import NamedTuple
from ...own import os, own_builtins, threading, time
from ...system import paths
from . import questions as program
from .checkout import Checkout, checkout_of
from .clients import Client, NotReachedError, asked, open_within
from .engines import Target, by_hand, cpus_of_nodes, gpus_of_nodes, starting, target
from .fitting import ALWAYS, DISTRIBUTION, Answers, Needed, advice, hint, misfits

if TYPE_CHECKING:
    from execnet import Channel

own_builtins(globals())

_PINGS = 3
"""Messages that are sent there and back, of which the fastest counts."""

_TOOL = 10.0
"""Seconds for one of Slurm's commands."""

_FORMER_NAME = "pytest-fkit"
"""What our distribution was called; an older checkout may have left it installed."""

_PASSED_ON = (
    "PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD", "FKIT_STACKS",
    "PYTEST_TIMEOUT",
)  # fmt: skip
"""Variables that say how pytest runs, so that it runs alike everywhere."""


class Reached(NamedTuple):
    """A machine that can run tests of this run.

    :param lag: seconds that a message takes there and back.
    :param ahead: seconds by which its clock is ahead of ours, 0 if that can't be told from the lag.
    :param told: what :func:`.handshake.answer` answers there.
    """

    machine: Target
    answers: Answers
    lag: float
    ahead: float
    told: Mapping[str, Any]


class Questions(NamedTuple):
    """What machines are asked.

    :param names: of variables.
    :param detection: by machine, seconds to look for its GPUs, 0 where they are known.
    """

    needed: Needed
    names: Sequence[str]
    detection: Mapping[str, float]


def machines_of(settings: MachineSettings, wanted: Machines) -> list[Target]:
    """The machines, by name.

    :raises pytest.UsageError: if the engine can't be used here.
    """
    seconds = settings.machines_timeout
    if wanted.engine != "slurm":
        found = [target(wanted, name, seconds) for name in wanted.names]
        _check_program(settings, found[0].command[0])
        return found
    job = os.environ.get("SLURM_JOB_ID")
    nodes = os.environ.get("SLURM_JOB_NODELIST")
    if not job or not nodes:
        raise pytest.UsageError(
            f"pytest-fkit: {settings.source}=slurm: this is not a Slurm job, SLURM_JOB_ID is not "
            "set; start pytest in an allocation, by `salloc -N2 pytest …` or in a script for sbatch"
        )
    for name in ("srun", "scontrol"):
        _check_program(settings, name)
    try:
        names = _names(nodes)
        details = output_of(["scontrol", "show", "job", "--details", job], os.environ, _TOOL)
        of_nodes = gpus_of_nodes(details)
        gpus = {name: of_nodes[each] for each in of_nodes for name in _names(each)}
    except FailedError as error:
        raise pytest.UsageError(
            f"pytest-fkit: {settings.source}=slurm: the nodes of job {job} are not known: "
            f"scontrol {error}"
        ) from None
    cpus = cpus_of_nodes(os.environ.get("SLURM_JOB_CPUS_PER_NODE", ""))
    cpus += [1] * (len(names) - len(cpus))
    return [
        target(wanted, name, seconds, number, gpus.get(name, ""))
        for name, number in zip(names, cpus)
    ]


def _names(nodes: str) -> list[str]:
    """The nodes of a list such as "n[1-2]".

    :raises FailedError: if Slurm does not know.
    """
    return output_of(["scontrol", "show", "hostnames", nodes], os.environ, _TOOL).split()


def _check_program(settings: MachineSettings, name: str) -> None:
    directories = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if not ("/" in name or "{" in name or paths.program(name, directories)):
        raise pytest.UsageError(
            f"pytest-fkit: {settings.source}={settings.machines}: there is no {name} on this "
            "machine's PATH; install it, or run pytest where it is"
        )


def needed_by(config: pytest.Config) -> Needed:
    versions: dict[str, str] = {}
    for _, distribution in config.pluginmanager.list_plugin_distinfo():
        if distribution.project_name != _FORMER_NAME:
            versions[distribution.project_name] = distribution.version
    from importlib import metadata

    for name in ALWAYS:
        versions.setdefault(name, metadata.version(name))
    return Needed("{}.{}".format(*sys.version_info), versions, checkout_of(config))


def reach(
    settings: MachineSettings, found: Sequence[Target], questions: Questions, folder: str
) -> list[Reached]:
    """The same machines, once all have answered, and fit.

    :param folder: for the files of clients.
    :raises pytest.UsageError: naming those that don't, with what to do.
    """
    python = settings.machines_python or (sys.executable,)
    answers: dict[str, Reached] = {}
    misfit: dict[str, list[str]] = {}
    unreached: dict[str, list[str]] = {}

    def question(client: Client) -> None:
        each = client.machine
        try:
            reached = _ask(client, questions, settings.machines_timeout)
        except NotReachedError as error:
            version = _old_version(client, str(error), settings.machines_timeout)
            if version:
                here = questions.needed.python
                misfit[each.name] = [f"Python is {version} there, {here} here"]
            else:
                unreached[each.name] = [f"it can't be used: {error}"]
        except Exception as error:  # noqa: BLE001 (in a thread, where nobody would hear of it)
            unreached[each.name] = [f"it can't be used: {error!r}"]
        else:
            wrong = misfits(questions.needed, reached.answers)
            if wrong:
                misfit[each.name] = wrong
            answers[each.name] = reached

    notes = [f"{folder}/asked-{number}" for number in range(len(found))]
    clients = [Client(each, python, note, f"{note}.err") for each, note in zip(found, notes)]
    _at_once(question, clients)
    if misfit or unreached:
        trouble = {**misfit, **unreached}
        lines = [f"  {each.name}: {line}" for each in found for line in trouble.get(each.name, ())]
        if misfit:
            lines.append(advice(misfit.values()))
        first = next((each for each in found if each.name in unreached), None)
        if first is not None:
            said = unreached[first.name][0]
            lines.append(f"{hint(said)} by hand: {shlex.join(by_hand(first, python))}")
        raise pytest.UsageError(
            "\n".join([f"pytest-fkit: {settings.source}={settings.machines}:", *lines])
        )
    return [answers[each.name] for each in found]


_VERSION = "import sys; print('fkit %d.%d' % sys.version_info[:2])"  # in any Python


def _old_version(client: Client, said: str, seconds: float) -> str:
    """The version of a Python that can't read execnet's program, "" if that was not the reason."""
    if "SyntaxError" not in said:
        return ""
    command = starting(client.machine, [*client.python, "-c", _VERSION])
    try:
        lines = output_of(command, os.environ, seconds).splitlines()
    except (FailedError, OSError):
        return ""
    return next((line[len("fkit ") :] for line in lines if line.startswith("fkit ")), "")


def _at_once(question: Callable[[Client], None], clients: Sequence[Client]) -> None:
    threads = [threading.Thread(target=question, args=(client,), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()  # its own limits end it
    except BaseException:  # Ctrl-C, of which the local ends, in sessions of their own, hear nothing
        for client in clients:
            client.kill()
        raise


def certain(lag: float, ahead: float) -> tuple[float, float]:
    """The same, without a difference of clocks that may come from the lag."""
    return lag, ahead if abs(ahead) > lag else 0.0


def _ask(client: Client, questions: Questions, seconds: float) -> Reached:
    """What a machine answers.

    :raises NotReachedError: if it does not.
    """
    detection = questions.detection[client.machine.name]
    group = execnet.Group()
    gateway = open_within(seconds, client, lambda: group.makegateway(client.specification))
    deadline = Deadline(seconds + detection)
    needed = questions.needed

    def ask() -> Reached:
        channel = gateway.remote_exec(program)
        checkout = needed.checkout
        channel.send((list(needed.versions), list(checkout.paths), checkout.sizes))
        data: Any = channel.receive(deadline.left)
        if data["commit"] not in ("", checkout.commit):
            data["other"] = _other_file(channel, checkout, deadline)
        pings = []
        for _ in range(_PINGS):
            wall, start = time.time(), time.monotonic()
            channel.send(True)
            there: Any = channel.receive(deadline.left)
            lag = time.monotonic() - start
            pings.append((lag, there - wall - lag / 2))
        channel.send(False)
        channel.waitclose(deadline.left)
        told: Any = {}
        if data["versions"][DISTRIBUTION]:  # else it can't be used, and does not know how to look
            channel = gateway.remote_exec(handshake)
            channel.send(("answer", list(questions.names), detection))
            told = channel.receive(deadline.left)
        return Reached(client.machine, Answers(**data), *certain(*min(pings)), told)

    try:
        return asked(deadline.seconds, client, ask)
    finally:
        group.terminate(1.0)
        client.kill()


def _other_file(channel: Channel, checkout: Checkout, deadline: Deadline) -> str | None:
    """See :class:`.Answers`: what is copied to a machine leaves an old .git there as it is."""
    files = checkout.files() if checkout.commit else None
    if files is None:
        return None
    channel.send(files)
    there: Any = channel.receive(deadline.left)
    here = program.checksums(files)
    return next((path for path, a, b in zip(files, here, there) if a != b), "")


def passed_on() -> dict[str, str]:
    """The variables of this process that workers elsewhere get, too."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
