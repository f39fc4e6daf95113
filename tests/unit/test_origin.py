"""Commit, branch, job and versions, as journals note them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_fkit.controller.reports.origin import _origin, drivers, package_versions
from pytest_fkit.system.git import Head, head

GITHUB = {
    "GITHUB_SHA": "f" * 40,
    "GITHUB_HEAD_REF": "",
    "GITHUB_REF_NAME": "main",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "a/b",
    "GITHUB_RUN_ID": "7",
    "GITHUB_RUN_ATTEMPT": "1",
}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (GITHUB, ("main", "https://github.com/a/b/actions/runs/7/attempts/1")),
        (
            {"CI_COMMIT_SHA": "f" * 40, "CI_COMMIT_REF_NAME": "x", "CI_JOB_URL": "https://j/1"},
            ("x", "https://j/1"),
        ),
        ({"GIT_COMMIT": "f" * 40, "GIT_BRANCH": "x"}, ("x", "")),  # no Jenkins, or an old one
    ],
)
def test_what_a_ci_system_says_goes_first(
    variables: dict[str, str], expected: tuple[str, str]
) -> None:
    branch, job = expected
    assert _origin(variables, "/nowhere") == {"commit": "f" * 40, "branch": branch, "job": job}


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_what_git_says_is_read_from_its_files(tmp_path: Path) -> None:
    def git(*arguments: str, where: Path = tmp_path / "repo") -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        command = ("git", "-C", str(where), *identity, *arguments)
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    repo = tmp_path / "repo"
    (repo / "tests").mkdir(parents=True)
    git("init", "-q", "--template=")
    git("symbolic-ref", "HEAD", "refs/heads/a/b")
    assert head(str(repo / "tests")) == Head("", "a/b")  # no commit yet
    git("commit", "-q", "--allow-empty", "-m", "x")
    commit = git("rev-parse", "HEAD")
    assert head(str(repo / "tests")) == Head(commit, "a/b")
    git("worktree", "add", "-q", "-b", "c", str(tmp_path / "tree"))
    assert head(str(tmp_path / "tree")) == Head(commit, "c")
    git("pack-refs", "--all")
    assert head(str(repo)) == Head(commit, "a/b")
    assert head(str(tmp_path / "tree")) == Head(commit, "c")
    git("checkout", "-q", "--detach")
    assert head(str(repo)) == Head(commit, "")


def test_where_there_is_no_git_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("rubbish")
    assert head(str(tmp_path)) == Head()
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / ".git").mkdir()
    (tmp_path / "none" / ".git" / "HEAD").write_text("ref: refs/heads/.invalid\n")
    assert head(str(tmp_path / "none")) == Head()


def test_drivers_and_packages_have_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sys/module/nvidia").mkdir(parents=True)
    (tmp_path / "sys/module/nvidia/version").write_text("550.54.15\n")
    monkeypatch.setenv("FKIT_FLEET_ROOT", str(tmp_path))
    assert drivers(["nvidia", "nvidia", "amd", "intel"]) == {"nvidia": "550.54.15"}
    assert package_versions(["pytest", "no-such-package"]) == {
        "pytest": pytest.__version__,
        "no-such-package": "not installed",
    }
