"""Machines on the way to the first test: what does not fit is named, and Ctrl-C ends it at once."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from inner_runs import started, wait_until
from sshd_server import needs_sshd, sshd

SUITE = {
    "conftest.py": """\
        import os, pathlib, time

        if os.environ.get("FKIT_MACHINE") and "FKIT_INNER_HANGS" in os.environ:
            with open(pathlib.Path(os.environ["FKIT_INNER_DIR"]) / "began.txt", "a") as file:
                file.write("began\\n")
            time.sleep(1000)
    """,
    "test_a.py": "def test_a(): pass\n",
}

CLIENT = """\
#!/bin/sh
# Reaches a machine so many times; after that it hangs.
times=$1 machine=$2
shift 2
[ "$times" = "$(ls -d "$FKIT_INNER_DIR/$machine"-* 2>/dev/null | wc -l)" ] && {
    echo began >> "$FKIT_INNER_DIR/began.txt"
    exec sleep 1000
}
mkdir "$FKIT_INNER_DIR/$machine-$$"
exec "$@"
"""


def exec_client(directory: Path, times: int) -> str:
    """A value of ``--fkit-machines``: n1 and n2 are reached so many times."""
    path = directory / "client"
    path.write_text(CLIENT)
    path.chmod(0o755)
    return f"--fkit-machines=exec:n1,n2 {path} {times} {{machine}} {{python}}"


SH = "--fkit-machines=exec:n1,n2 sh -c"

PYTHONS = ("2.7", "3.6", "3.7")


@pytest.mark.parametrize(
    ("machines", "said"),
    [
        (f"{SH} 'rm -f test_a.py; exec {{python}}' {{machine}}",
         ["n1: $DIR/test_a.py is not there", "n2: $DIR", "put the checkout at the same path"]),
        (f"{SH} '[ {{machine}} = n1 ] || echo x=1 >> conftest.py; exec {{python}}'",
         ["n2: $DIR/conftest.py is not the same as here", "to the state of the one here"]),
        (f"{SH} 'exit 3 {{python}} {{machine}}'",
         ["n1: it can't be used: the connection was closed", "or try by hand: sh -c "]),
        (f"{SH} 'sleep 1000; {{python}} {{machine}}'", ["n2: it can't be used: no answer"]),
        (f"{SH} 'echo hello; exec {{python}} {{machine}}'", ["writes to its standard output"]),
        ("--fkit-machines=exec:n1 no-such-command {python}", ["there is no no-such-command on"]),
        ("--fkit-machines=ssh:no-such-host.invalid", ["no-such-host.invalid: it can't be used: "]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_before_anything_starts(
    machines: str, said: list[str], tmp_path: Path
) -> None:
    if ":no-such-host" in machines and not shutil.which("ssh"):
        pytest.skip("needs OpenSSH's client")
    with started(tmp_path, SUITE, "--fkit", machines, "--fkit-machines-timeout=3") as run:
        outcome = run.wait(30)
        assert run.await_gone(10) == []
    assert outcome.status == pytest.ExitCode.USAGE_ERROR, outcome.stdout + outcome.stderr
    for each in said:
        assert each.replace("$DIR", str(tmp_path)) in outcome.stderr
    assert "Traceback" not in outcome.stdout + outcome.stderr
    assert outcome.verdicts == {}


def old_python() -> str:
    """One that execnet does not run on, "" if there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for version in PYTHONS:
        installed = map(str, pyenv.glob(f"versions/{version}.*/bin/python"))
        for path in filter(None, (*installed, shutil.which(f"python{version}"))):
            # A shim of pyenv may stand for a version that is not chosen.
            if subprocess.run([path, "-V"], capture_output=True, check=False).returncode == 0:
                return path
    return ""


def test_an_old_python_is_named(tmp_path: Path) -> None:
    python = old_python()
    if not python:
        pytest.skip(f"needs a Python of {', '.join(PYTHONS)}")
    machines = "--fkit-machines=exec:n1 sh -c 'exec {python}'"
    with started(
        tmp_path, SUITE, "--fkit", machines, f"--fkit-machines-python={python}"
    ) as run:  # fmt: skip
        outcome = run.wait(60)
    here = "{}.{}".format(*sys.version_info)
    assert re.search(rf"n1: Python is (2\.7|3\.[67]) there, {here} here", outcome.stderr)
    assert "--fkit-machines-python" in outcome.stderr


@needs_sshd
@pytest.mark.parametrize(
    ("option", "said"),
    [
        (
            "StrictHostKeyChecking yes",
            ["Host key verification failed", "its key is not known here: connect once"],
        ),
        ("PubkeyAuthentication no", ["Permission denied (", "use a key, or an agent"]),
        ("ProxyCommand sleep 1000", ["no answer within 3 s"]),
    ],
)
def test_what_ssh_would_ask_for_is_named(option: str, said: list[str], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    with sshd(keys, {}) as server:
        configuration = server.client
        configuration.write_text(f"{option}\n{configuration.read_text()}")
        ssh = f"sh -c 'exec ssh -F {configuration} -oBatchMode=yes {{machine}} {{python}}'"
        with started(
            tmp_path, SUITE, "--fkit", f"--fkit-machines=exec:node7 {ssh}",
            "--fkit-machines-timeout=3",
        ) as run:  # fmt: skip
            outcome = run.wait(30)
            assert run.await_gone(10) == []
    assert outcome.status == pytest.ExitCode.USAGE_ERROR, outcome.stdout + outcome.stderr
    for each in said:
        assert each in outcome.stderr


@pytest.mark.parametrize(
    ("times", "variables"),
    [(0, {}), (1, {}), (100, {"FKIT_INNER_HANGS": "1"})],
    ids=["asked", "opened", "importing"],
)
def test_ctrl_c_ends_machines_that_start(
    times: int, variables: dict[str, str], tmp_path: Path
) -> None:
    with started(
        tmp_path, SUITE, "--fkit", exec_client(tmp_path, times), "-n1", "--fkit-grace=300",
        env=variables,
    ) as run:  # fmt: skip
        assert wait_until(lambda: run.await_file("began.txt").count("began") == 2, 30)
        os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does
        outcome = run.wait(30)
        assert run.await_gone(20) == []
    assert outcome.status == pytest.ExitCode.INTERRUPTED, outcome.stdout + outcome.stderr
    assert "!! KeyboardInterrupt !!" in outcome.stdout
    assert "Traceback" not in outcome.stdout + outcome.stderr
    # Neither a limit nor the grace is waited for; plain xdist takes a second to end workers.
    assert [*(tmp_path / "tmp").glob("pytest-fkit-*")] == []
