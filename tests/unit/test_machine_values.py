"""Machines that a user names: what is parsed, asked, and said to those that don't fit."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import execnet
import pytest
from execnet.gateway_io import popen_args

from pytest_fkit.config.machine_option import Machines, parse_machines
from pytest_fkit.config.settings import machine_settings_of
from pytest_fkit.controller.machines import engines, questions
from pytest_fkit.controller.machines.checkout import Checkout, checkout_of
from pytest_fkit.controller.machines.clients import Client, NotReachedError, open_within
from pytest_fkit.controller.machines.fitting import Answers, Needed, advice, misfits, twins
from pytest_fkit.controller.machines.reaching import certain, machines_of
from pytest_fkit.controller.schedule.machines import Seat, seats, workers_by_machine
from pytest_fkit.journal.attempts import by_clock_of_controller
from pytest_fkit.protocol.border import ItemAttempt
from pytest_fkit.protocol.endings import Finished
from pytest_fkit.system.git import head

KUBECTL = "exec:pod-0,pod-1 kubectl exec -i {machine} -- {python}"


@pytest.mark.parametrize(
    ("text", "machines"),
    [
        ("slurm", Machines("slurm")),
        ("ssh:node7, me@node8", Machines("ssh", ("node7", "me@node8"))),
        ("ssh:[::1]", Machines("ssh", ("[::1]",))),
        (
            KUBECTL,
            Machines(
                "exec",
                ("pod-0", "pod-1"),
                ("kubectl", "exec", "-i", "{machine}", "--", "{python}"),
            ),
        ),
    ],
)
def test_what_is_understood(text: str, machines: Machines) -> None:
    assert parse_machines(text) == machines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected slurm, ssh:HOST,HOST or exec:NAME,NAME COMMAND"),
        ("slurm:n1", "the machines are the nodes of the allocation"),
        ("ssh:", "'': expected the name of a machine"),
        ("ssh:a,,b", "'': expected the name of a machine"),
        ("ssh:-oProxyCommand=x", "'-oProxyCommand=x': expected the name"),
        ("ssh:a b", "'a b': expected the name"),
        ("ssh:a,a", "a is named twice"),
        ("exec:a", "expected a command with {python}"),
        ("exec:a ssh a python", "expected a command with {python}"),
        ("exec:a,b ssh a {python}", "it needs {machine} in it"),
        ("exec:a sh -c 'x {python}", "No closing quotation"),
    ],
)
def test_what_is_not_says_what_is_expected(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"expected|twice|needs") as caught:
        parse_machines(text)
    assert said in str(caught.value)


def test_a_command_survives_execnet_and_a_shell(tmp_path: Path) -> None:
    """With words that have quotes, spaces, and what separates execnet's keys."""
    odd = tmp_path / 'it\'s a "b" //c///d $HOME'
    odd.mkdir(parents=True)
    script = f"cd {shlex.quote(str(odd))} && A='x // y' exec {{python}}"
    wanted = Machines("exec", ("one",), ("sh", "-c", script))
    target = engines.target(wanted, "one", 60)
    client = Client(target, (sys.executable,), f"{tmp_path}//note", f"{tmp_path}/errors")
    group = execnet.Group()
    gateway = open_within(60, client, lambda: group.makegateway(client.specification))
    found = gateway.remote_exec("import os; channel.send([os.getcwd(), os.environ['A']])").receive()
    assert found == [str(odd), "x // y"]
    process = cast("Any", gateway._io).popen
    assert (tmp_path / "note").read_text() == str(process.pid)
    client.kill()
    assert process.wait(60) == -9
    group.terminate(1.0)


def test_execnet_ends_a_command_with_what_we_leave_away() -> None:
    spec = execnet.XSpec("popen//python=env python")
    assert popen_args(spec) == ["env", "python", "-u", "-c", engines._BOOTSTRAP]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("sh", "-c", "echo it is down >&2; exit 1; {python}"), "it is down"),
        (("sh", "-c", "sleep 100; {python}"), "no answer within 0.5 s"),
        (("/nowhere/at/all", "{python}"), "/nowhere/at/all: No such file or directory"),
    ],
)
def test_who_is_not_reached_says_why(tmp_path: Path, command: tuple[str, ...], said: str) -> None:
    target = engines.target(Machines("exec", ("one",), command), "one", 60)
    client = Client(target, (sys.executable,), f"{tmp_path}/note", f"{tmp_path}/errors")
    group = execnet.Group()
    limit = 0.5 if "sleep" in str(command) else 60
    with pytest.raises(NotReachedError) as caught:
        open_within(limit, client, lambda: group.makegateway(client.specification))
    assert str(caught.value) == said
    group.terminate(1.0)


def test_slurm_and_ssh_are_commands_too() -> None:
    n1 = engines.target(Machines("slurm"), "n1", 60, 4)
    words = engines.command(n1, ["python3"])
    assert words[0] == "env"
    assert "srun" in words
    assert {"--nodelist=n1", "--cpus-per-task=4", "--overlap", "--unbuffered"} <= set(words)
    assert not any("gpus" in each for each in words)
    assert words[-4:] == ["python3", "-u", "-c", engines._BOOTSTRAP]
    assert engines.cancelling(n1, "7.3") == ["scancel", "--signal=KILL", "7.3"]
    assert engines.cancelling(n1, "") == []
    ssh = engines.command(engines.target(Machines("ssh", ("a",)), "a", 12.4), ["a b"])
    assert ssh[:-1] == ["ssh", "-T", "-oBatchMode=yes", "-oConnectTimeout=12", "a"]
    assert shlex.split(ssh[-1]) == ["exec", "a b", "-u", "-c", engines._BOOTSTRAP]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("me@n1", "me@n1"),
        ("me@n1:2222", "ssh://me@n1:2222"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("me@[fe80::1]:22", "ssh://me@[fe80::1]:22"),
    ],
)
def test_ssh_takes_a_port_with_the_name(name: str, word: str) -> None:
    assert engines.target(Machines("ssh", (name,)), name, 60).command[-2] == word


def test_workers_are_seated_on_their_machines() -> None:
    texts = [
        engines.specification(engines.target(Machines("ssh"), name, 1), ["p"], f"/{number}", "")
        for number, name in enumerate(("n1", "n1", "n2"))
    ]
    found = seats(texts, [])
    assert found == [Seat(0, "gw0", "n1"), Seat(1, "gw1", "n1"), Seat(2, "gw2", "n2")]
    assert workers_by_machine(found) == "n1 gw0,gw1 | n2 gw2"


@pytest.mark.parametrize(
    ("text", "numbers"), [("2(x2),4", [2, 2, 4]), ("16", [16]), ("", []), ("1,3(x2)", [1, 3, 3])]
)
def test_slurm_counts_cpus(text: str, numbers: list[int]) -> None:
    assert engines.cpus_of_nodes(text) == numbers


def test_slurm_says_how_many_gpus_a_step_has_to_ask_for() -> None:
    nodes = (
        "     Nodes=n1 CPU_IDs=0-1 Mem=500 GRES=gpu:a100:2(IDX:0-1),gpu:v100:1(IDX:2),mps:5\n"
        "     Nodes=n[2-3] CPU_IDs=0 Mem=500 GRES=gpu:1(IDX:0)\n"
        "     Nodes=n4 CPU_IDs=0 Mem=500 GRES=\n"
    )
    found = engines.gpus_of_nodes(f"JobId=1\n{nodes}   TresPerTask=cpu=2,gres/gpu=1\n")
    assert found == {"n1": "a100:2,v100:1", "n[2-3]": "1", "n4": "0"}
    assert engines.gpus_of_nodes(f"JobId=1\n{nodes}   TresPerNode=gres:gpu:1\n") == {}
    n1 = engines.target(Machines("slurm"), "n1", 60, 4, found["n1"])
    assert "--gpus=a100:2,v100:1" in n1.command


CHECKOUT = Checkout(("/src",), {"/src/test_a.py": 7}, "c" * 40)
NEEDED = Needed("3.11", {"pytest": "9.2.0", "pytest-xdist": "3.8.0"}, CHECKOUT)
FITS = Answers("n1", "/usr/bin/python3", "3.11", dict(NEEDED.versions), (), 8, (), "c" * 40)


def test_a_machine_that_has_what_is_here_fits() -> None:
    assert misfits(NEEDED, FITS) == []


def test_one_that_lacks_something_is_told_what() -> None:
    other = FITS._replace(
        python="3.9", versions={"pytest": "8.0", "pytest-xdist": ""}, missing=["/src", "/src/a"]
    )
    found = misfits(NEEDED, other)
    assert found == [
        "Python is 3.9 there (/usr/bin/python3), 3.11 here",
        "pytest-xdist is not installed for /usr/bin/python3",
        "pytest is 8.0 there, 9.2.0 here",
        "/src and /src/a are not there",
    ]
    assert "--fkit-machines-python" in advice([found])
    assert "checkout" in advice([found])
    assert "checkout" not in advice([found[:3]])


def test_two_names_of_one_machine_are_named() -> None:
    machines = {name: FITS._replace(host=host, boot=boot) for name, host, boot in (
        ("node7", "node7", "a"), ("n7", "node7", "a"), ("pod-0", "pod-0", "a"),
        ("node8", "node7", "b"), ("mac", "mac", ""), ("mac2", "mac", ""),
    )}  # fmt: skip
    assert twins(machines) == ["node7 and n7 are one machine, node7: they share its cores and GPUs"]


def test_another_checkout_is_told_what_differs() -> None:
    assert misfits(NEEDED, FITS._replace(commit="")) == []
    older = misfits(NEEDED, FITS._replace(commit="d" * 40))
    assert older == ["commit dddddddddddd is checked out there, cccccccccccc in this checkout"]
    found = misfits(NEEDED, FITS._replace(commit="d" * 40, other="/src/b.py"))
    assert found == [older[0].replace(" there, ", " there, with another /src/b.py, ")]
    assert misfits(NEEDED, FITS._replace(commit="d" * 40, other="")) == []
    changed = misfits(NEEDED, FITS._replace(differing=[f"/src/{name}.py" for name in "abcde"]))
    assert changed == ["/src/a.py, /src/b.py, /src/c.py and 2 more are not the same as here"]
    assert advice([older]) == advice([changed])
    assert "state of the one here" in advice([older, changed])


def test_what_a_machine_says_of_a_checkout(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("same", "longer"):
        (tmp_path / name).write_text(name)
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a")
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "a")):
        subprocess.run([*git, *words], check=True)
    sizes = {f"{tmp_path}/same": 4, f"{tmp_path}/longer": 4, f"{tmp_path}/gone": 4}
    said = questions.answers([], [f"{tmp_path}/below", "/nowhere"], sizes)
    assert said["missing"] == ["/nowhere", f"{tmp_path}/gone"]
    assert said["differing"] == [f"{tmp_path}/longer"]
    assert said["commit"] == head(str(tmp_path)).commit != ""
    for packed in (("pack-refs", "--all"), ("checkout", "-q", "--detach")):
        subprocess.run([*git, *packed], check=True)
        assert questions.answers([], [str(tmp_path)], {})["commit"] == said["commit"]
    subprocess.run([*git, "worktree", "add", "-q", f"{tmp_path}/other"], check=True)
    assert questions.answers([], [f"{tmp_path}/other"], {})["commit"] == ""


def test_what_is_compared(pytester: pytest.Pytester) -> None:
    for path in ("conftest.py", "a/conftest.py", "a/test_a.py", "a/b/c_test.py", "a/b/code.py",
                 "venv/test_v.py", ".tox/test_t.py", "z/test_z.py"):  # fmt: skip
        (pytester.path / path).parent.mkdir(exist_ok=True, parents=True)
        (pytester.path / path).write_text(f"# {path}")
    pytester.makeini("[pytest]\n")
    found = checkout_of(pytester.parseconfig("a/b", "a/test_a.py::test_x"))
    names = {path[len(str(pytester.path)) + 1 :]: size for path, size in found.sizes.items()}
    expected = ("conftest.py", "a/conftest.py", "a/b/c_test.py", "a/test_a.py")
    assert names == {"tox.ini": len("[pytest]"), **{path: len(path) + 2 for path in expected}}
    everything = checkout_of(pytester.parseconfig())
    assert f"{pytester.path}/z/test_z.py" in everything.sizes
    assert not [path for path in everything.sizes if "venv" in path or ".tox" in path]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "this is not a Slurm job, SLURM_JOB_ID is not set; start pytest in an allocation"),
        (
            {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "PATH": "/nowhere"},
            "there is no srun on this machine's PATH",
        ),
    ],
)
def test_no_allocation_and_no_srun_are_named(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    said: str,
) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = machine_settings_of(pytester.parseconfig("--fkit-machines=slurm"))
    assert settings.machines is not None
    with pytest.raises(pytest.UsageError, match=said):
        machines_of(settings, settings.machines)


def test_what_contradicts_other_machines_is_named(pytester: pytest.Pytester) -> None:
    machines = "--fkit-machines=exec:a {python}"
    for arguments, said in (
        (["-n0"], "-n0 runs all tests in this process"),
        (["--tx=popen"], "--tx names workers, too"),
        (["-n1", "--fkit-workers=2"], "contradict each other"),
        (["-p", "no:xdist"], "pytest-xdist is disabled"),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "--fkit", machines, *arguments],
            cwd=pytester.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=60, check=False,
        )  # fmt: skip
        assert ended.returncode == pytest.ExitCode.USAGE_ERROR, ended.stdout
        assert said in ended.stdout.decode()


def test_a_clock_that_differs_by_no_more_than_messages_take_does_not_differ() -> None:
    assert certain(0.05, 0.04) == certain(0.05, -0.05) == (0.05, 0.0)
    assert certain(0.05, 7.0) == (0.05, 7.0)


def test_times_elsewhere_become_those_of_the_controller() -> None:
    found = by_clock_of_controller(
        ItemAttempt(
            "test_a", 107.0, Finished(),
            (("call", 107.5, 1.0, "passed"),), (("setup", "wide", 107.25, 0.1),),
        ),
        7.0,
    )  # fmt: skip
    assert (found.start, found.phases) == (100.0, (("call", 100.5, 1.0, "passed"),))
    assert found.wide == (("setup", "wide", 100.25, 0.1),)
    assert by_clock_of_controller(found, 0.0) is found
