"""Machines with process ids, clocks, file systems and users of their own, as pods have them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from inner_runs import started

SUITE = {
    "test_many.py": """\
        import os, subprocess, time, pytest

        @pytest.mark.parametrize("number", range(8))
        def test_sleeps(number):
            with open(os.environ["TMPDIR"] + f"/now-{number}", "w") as file:
                file.write(f"{time.time()} {os.getuid()}")
            time.sleep(0.2)

        def test_crashes():
            os.abort()

        @pytest.mark.fkit(timeout=1)
        def test_hangs():
            time.sleep(1000)

        def test_leaves_a_process():
            subprocess.Popen(["setsid", "sleep", "1000"])

        @pytest.mark.parametrize("number", range(4))
        def test_writes(tmp_path, number):
            (tmp_path / "file").write_text("text")
    """,
}

READER = "+dac_read_search"
WORLDS = {
    "processes": ("unshare", "-pf", "--mount-proc"),
    "monotonic": ("unshare", "-Tf", "--monotonic", "5000", "--boottime", "90000"),
    "files": ("unshare", "-m"),
    # It may read what only the first user may read, as where the interpreter is in a home.
    "user": ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
             f"--inh-caps={READER}", f"--ambient-caps={READER}"),
}  # fmt: skip
"""util-linux: commands that run others in a world of their own."""

AHEAD = 420
WALL = f"""\
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {{
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += {AHEAD};
    return failed;
}}
"""


def clock_that_is_ahead(directory: Path) -> tuple[str, ...]:
    """A command whose programs see a time of day that is minutes ahead."""
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("needs a C compiler")
    library = directory / "wall.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-xc", "-", "-o", str(library)],
        input=WALL, encoding="utf-8", check=True,
    )  # fmt: skip
    return "env", f"LD_PRELOAD={library}"


def lacking(command: tuple[str, ...]) -> bool:
    if not shutil.which(command[0]):
        return True
    return bool(subprocess.run(command, capture_output=True, check=False).returncode)


@pytest.mark.parametrize(
    "worlds", [("processes", "monotonic"), ("files", "user"), ("wall", "")], ids=" and ".join
)
def test_verdicts_times_and_ends_are_as_anywhere(worlds: tuple[str, str], tmp_path: Path) -> None:
    known = {**WORLDS, "": ()}
    if "wall" in worlds:
        known["wall"] = clock_that_is_ahead(tmp_path)
    missing = [each for each in worlds if lacking((*known[each], "true"))]
    if missing:
        pytest.skip(f"needs root, and namespaces, for {', '.join(missing)}")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    for directory in (tmp_path, *list(tmp_path.parents)[:2]):
        directory.chmod(0o755)
    client = tmp_path / "client"
    cases = "".join(f'n{n}) exec {" ".join(known[w])} "$@" ;; ' for n, w in enumerate(worlds, 1))
    client.write_text(f"#!/bin/sh\nname=$1\nshift\ncase $name in {cases}esac\n")
    client.chmod(0o755)
    with started(
        tmp_path, SUITE, "--fkit", f"--fkit-machines=exec:n1,n2 {client} {{machine}} {{python}}",
        "-n1", "--fkit-journal=j.jsonl", "--fkit-worker-timeout=5", env={"TMPDIR": str(shared)},
    ) as run:  # fmt: skip
        outcome = run.wait(60)
        assert run.await_gone(10) == []
    assert outcome.status == pytest.ExitCode.TESTS_FAILED, outcome.stdout + outcome.stderr
    failed = {name.partition("::")[2] for name, each in outcome.verdicts.items() if each.failures}
    assert failed == {"test_crashes", "test_hangs"}, outcome.stdout
    assert len(outcome.verdicts) == 15
    assert "timed out after 1 s" in outcome.stdout
    assert "SIGABRT" in outcome.stdout
    events = [json.loads(line) for line in (tmp_path / "j.jsonl").read_text().splitlines()]
    check_times(events)
    seen = [path.read_text().split() for path in shared.glob("now-*")]
    assert ("user" in worlds) == any(user != str(os.getuid()) for _, user in seen)
    ahead = [float(wall) - events[-1]["wall"] for wall, _ in seen]
    assert ("wall" in worlds) == any(each > AHEAD / 2 for each in ahead)


def check_times(events: list[dict[str, Any]]) -> None:
    """Whether all is between the begin and the end of the run, and lasts as long as it does."""
    begin, end = events[0]["wall"], events[-1]["wall"]
    attempts = {each["test"]: each for each in events if each["event"] == "attempt"}
    assert {each["worker"] for each in attempts.values()} == {"gw0", "gw1"}
    for each in attempts.values():
        assert begin <= each["start"] <= each["start"] + each["duration"] <= end
    for number in range(8):
        assert 0.2 <= attempts[f"test_many.py::test_sleeps[{number}]"]["duration"] < 2
    assert 1 <= attempts["test_many.py::test_hangs"]["duration"] < 5
    assert all(begin <= each["wall"] <= end for each in events)


def test_a_process_that_dies_of_full_shared_memory_is_tried_elsewhere(tmp_path: Path) -> None:
    suite = {
        "test_it.py": """\
            import mmap, os, pathlib, pytest, tempfile, time

            HERE = pathlib.Path(__file__).parent

            @pytest.mark.parametrize("number", range(2))
            def test_shared_memory(number):
                (HERE / ("on-" + os.environ["FKIT_MACHINE"])).touch()
                deadline = time.monotonic() + 60
                while len([*HERE.glob("on-*")]) < 2:  # both machines are to have their turn
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                with tempfile.TemporaryFile(dir="/dev/shm") as file:
                    os.ftruncate(file.fileno(), 1 << 20)
                    mmap.mmap(file.fileno(), 1 << 20)[:] = bytes(1 << 20)
        """,
        "client": '[ "$1" = n2 ] || exec unshare -m sh full "$@"; shift; exec "$@"',
        "full": """\
            mount -t tmpfs -o size=1m none /dev/shm
            head -c 1000000 /dev/zero > /dev/shm/taken
            shift
            exec "$@"
        """,
    }
    if lacking(("unshare", "-m", "mount", "-t", "tmpfs", "none", "/dev/shm")):
        pytest.skip("needs root, and namespaces for mounts")
    machines = "--fkit-machines=exec:n1,n2 sh client {machine} {python}"
    with started(tmp_path, suite, "--fkit", machines, "-n1") as run:
        outcome = run.wait(60)
        assert run.await_gone(10) == []
    assert outcome.status == 0, outcome.stdout
    assert "attempt 1 on gw0 on n1: SIGBUS in call, and /dev/shm is full" in outcome.stdout


@pytest.mark.parametrize("changed", ["", "module.py"])
def test_an_old_git_directory_is_told_from_an_old_checkout(changed: str, tmp_path: Path) -> None:
    """What is copied to a machine, as by rsync, may find the .git of an earlier clone there."""
    here, there = tmp_path / "here", tmp_path / "there"
    if lacking(("unshare", "-m", "mount", "--bind", str(tmp_path), "/mnt")):
        pytest.skip("needs root, and namespaces for mounts")
    test = "def test_it(): pass\n"
    files = {"pytest.ini": "[pytest]\n", "test_it.py": test, "module.py": "NUMBER = 1\n"}
    for directory in (here, there):
        directory.mkdir()
        for name, text in files.items():
            (directory / name).write_text(text)
        git = ("git", "-C", str(directory), "-c", "user.name=a", "-c", "user.email=a")
        for words in (("init", "-q"), ("add", "."), ("commit", "-qm", directory.name)):
            subprocess.run([*git, *words], check=True)
    if changed:
        (there / changed).write_text("NUMBER = 2\n")
    mount = f"mount --bind {there} {here} && exec {{python}}"
    machines = f"--fkit-machines=exec:n1 unshare -m sh -c '{mount}'"
    with started(tmp_path, {}, "--fkit", machines, "-n1", str(here)) as run:
        outcome = run.wait(60)
        assert run.await_gone(10) == []
    if changed:
        assert outcome.status == pytest.ExitCode.USAGE_ERROR, outcome.stdout
        assert f"is checked out there, with another {here}/{changed}, " in outcome.stderr
    else:
        assert outcome.status == 0, outcome.stdout + outcome.stderr
