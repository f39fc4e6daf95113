"""The job files of the documentation, run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Mapping

import pytest
from inner import environment
from slurm_cluster import MISSING, cluster
from sshd_server import needs_sshd, sshd

PAGES = Path(__file__).parents[2] / "docs" / "ci"

SUITE = """\
import os, pytest

@pytest.mark.parametrize("number", range(20))
def test_it(number, record_property):
    record_property("machine", os.environ["FKIT_MACHINE"])
"""


def job_file(page: str, directory: Path) -> Path:
    """The first script of a page, in a directory with a suite."""
    text = (PAGES / page).read_text(encoding="utf-8")
    script = re.search(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert script is not None
    (directory / "pytest.ini").write_text("[pytest]\n")
    (directory / "test_it.py").write_text(SUITE)
    path = directory / "job.sh"
    path.write_text(script[1])
    path.chmod(0o755)
    return path


def check(directory: Path, ended: subprocess.CompletedProcess[bytes]) -> None:
    printed = ended.stdout.decode() + "".join(each.read_text() for each in directory.glob("*.out"))
    assert ended.returncode == 0, printed
    root = ElementTree.parse(directory / "report.xml").getroot()
    cases = [*root.iter("testcase")]
    assert len(cases) == 20
    assert not [*root.iter("failure"), *root.iter("error")]
    assert "20 passed" in printed


def run(command: list[str], directory: Path, environ: Mapping[str, str], path: str = "") -> None:
    # The scripts say "python", as one with an activated environment does.
    here = f"{path}{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    ended = subprocess.run(
        command, cwd=directory, env=environment({**environ, "PATH": here}),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False,
    )  # fmt: skip
    check(directory, ended)


@pytest.mark.skipif(bool(MISSING), reason=f"needs Slurm: no {', '.join(MISSING)}")
def test_the_job_of_slurm(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    job = job_file("slurm.md", tmp_path)
    with cluster(tmp_path_factory.mktemp("slurm")) as slurm:
        run(["sbatch", "--wait", str(job)], tmp_path, slurm.environ)


@needs_sshd
def test_the_job_of_ssh(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    job = job_file("ssh.md", tmp_path)
    keys = tmp_path_factory.mktemp("keys")
    with sshd(keys, {}, ("node7", "node8")) as server:
        ssh = keys / "ssh"
        ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {server.client} "$@"\n')
        ssh.chmod(0o755)
        run([str(job)], tmp_path, {}, f"{keys}{os.pathsep}")
