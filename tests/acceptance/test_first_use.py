"""What a first user meets: on and off, a second run with the same journal."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest
from inner import run_pytest, write_files

import pytest_fkit_installation

ROOT = Path(__file__).parents[2]
SUITE = {"test_a.py": "def test_a(): pass\ndef test_b(): pass\n"}
RESUMED = {"PASSED (resumed) test_a.py::test_a", "PASSED test_a.py::test_b"}
OUTCOMES = {"test_a.py::test_a": "PASSED", "test_a.py::test_b": "PASSED"}


@pytest.mark.parametrize(
    ("arguments", "isolated"),
    [
        ("--fkit -n0 --no-fkit", False),
        ("-n0 --no-fkit --fkit", True),
        ("--no-fkit --fkit-workers=x --fkit-gpus=9 --fkit-timeout=soon --fkit-journal=j", False),
        ("--no-fkit -p no:timeout --timeout=x --fkit-resume=j --fkit-trace=t", False),
    ],
)
def test_the_last_of_on_and_off_counts(tmp_path: Path, arguments: str, isolated: bool) -> None:
    ini = {"pytest.ini": "[pytest]\naddopts = --fkit -p no:cacheprovider -Werror\n"}
    ended = run_pytest(write_files(tmp_path, {**SUITE, **ini}), *arguments.split())
    assert ended.status == 0, ended.out + ended.err
    assert ended.outcomes == OUTCOMES
    assert ("\nfkit: " in ended.out) is isolated
    assert not {path.name for path in tmp_path.iterdir()} & {"j", "t"}


def _cut(journal: Path) -> bytes:
    """Make it one of a run that was killed after its first verdict."""
    lines = journal.read_bytes().splitlines(keepends=True)
    kinds = [json.loads(line)["event"] for line in lines]
    journal.write_bytes(b"".join(lines[: kinds.index("verdict") + 1]) + b'{"event":"ver')
    return journal.read_bytes()


@pytest.mark.parametrize(
    ("ini", "arguments"),
    [("", ["--fkit-journal=run.jsonl"]), ("addopts = --fkit-journal=run.jsonl", ["-q"])],
    ids=["header", "no header, addopts"],
)
def test_a_second_run_does_not_cost_the_first_one_its_journal(
    tmp_path: Path, ini: str, arguments: list[str]
) -> None:
    write_files(tmp_path, {**SUITE, "pytest.ini": f"[pytest]\n{ini}\n"})
    command = ["--fkit", "-n0", *arguments]
    assert run_pytest(tmp_path, *command).status == 0
    journal, aside = tmp_path / "run.jsonl", tmp_path / "run.jsonl.1"
    killed = _cut(journal)
    again = run_pytest(tmp_path, *command)
    assert again.outcomes == OUTCOMES
    assert aside.read_bytes() == killed
    [line] = [line for line in again.lines if "did not end" in line]
    assert line.startswith("fkit: the run in run.jsonl did not end; its journal is now run.jsonl.1")
    # Its own has an end: nothing else is set aside.
    third = run_pytest(tmp_path, *command)
    assert "did not end" not in third.out
    assert sorted(path.name for path in tmp_path.glob("run.*")) == ["run.jsonl", "run.jsonl.1"]
    # -rA is there already.
    program, _, *rest = shlex.split(line.rpartition("to resume it: ")[2])
    assert program == "pytest"
    resumed = run_pytest(tmp_path, *rest)
    assert {*resumed.lines} >= RESUMED, resumed.out + resumed.err
    assert aside.read_bytes().startswith(killed[: killed.rindex(b"\n")])


def test_what_is_no_journal_is_set_aside_as_well(tmp_path: Path) -> None:
    write_files(tmp_path, {**SUITE, "notes.txt": "mine\n"})
    ended = run_pytest(tmp_path, "--fkit", "-n0", "--fkit-journal=notes.txt")
    assert "fkit: notes.txt was not a journal that can be read; it is now notes.txt.1" in (
        ended.lines
    )
    assert (tmp_path / "notes.txt.1").read_text() == "mine\n"


def test_a_run_that_is_not_there_is_begun(tmp_path: Path) -> None:
    write_files(tmp_path, SUITE)
    command = ["--fkit", "-n0", "--fkit-resume=run.jsonl"]
    first = run_pytest(tmp_path, *command)
    assert first.outcomes == OUTCOMES
    assert "fkit: there is no run.jsonl to resume: this run creates it" in first.lines
    _cut(tmp_path / "run.jsonl")
    second = run_pytest(tmp_path, *command)
    assert {*second.lines} >= RESUMED, second.out + second.err
    assert "to resume" not in second.out


# As the wheel of 0.11.0 on PyPI has it.
OTHER = {
    "other/pytest_fkit/__init__.py": "",
    "other/pytest_fkit/plugin.py": "def pytest_addoption(parser):\n"
    "    parser.addoption('--fkit', action='store_true')\n",
    "other/pytest_fkit-0.11.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: pytest-fkit\n"
    "Version: 0.11.0\n",
    "other/pytest_fkit-0.11.0.dist-info/entry_points.txt": "[pytest11]\n"
    "fkit = pytest_fkit.plugin\n",
}


def _ours() -> dict[str, str]:
    """An installation of ours, in metadata: that of who runs this may be an older one."""
    text = (ROOT / "pyproject.toml").read_text()
    entries = "\n".join(
        f"[{name}]\n" + text.partition(f"[project.{section}]\n")[2].partition("\n[")[0]
        for name, section in (
            ("console_scripts", "scripts"),
            ("pytest11", "entry-points.pytest11"),
        )
    ).replace('"', "")
    return {
        "ours/pytest_forkit-99.dist-info/METADATA": "Metadata-Version: 2.1\nName: pytest-forkit\n"
        "Version: 99\n",
        "ours/pytest_forkit-99.dist-info/entry_points.txt": entries,
    }


@pytest.mark.parametrize("autoload", [True, False])
@pytest.mark.parametrize("first", ["ours", "other"])
def test_another_project_of_this_name_beside_it(tmp_path: Path, first: str, autoload: bool) -> None:
    if first == "other" and not autoload:
        pytest.skip("then the other project's module is what -p names")
    write_files(tmp_path, {**SUITE, **OTHER, **_ours()})
    source = str(Path(pytest_fkit_installation.__file__).parent)
    path = [str(tmp_path / "ours"), source, str(tmp_path / "other")]
    if first == "other":
        path = path[::-1]
    env = {"PYTHONPATH": os.pathsep.join(path)}
    arguments = ["-n0"]
    if not autoload:
        env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        arguments = ["-p", "xdist", "-p", "pytest_fkit.plugin", *arguments]
    ended = run_pytest(tmp_path, "--fkit", *arguments, env=env)
    assert ended.status == pytest.ExitCode.USAGE_ERROR, ended.out
    assert "Traceback" not in ended.err
    where = tmp_path / "other"
    text = f"another project with this name is installed, too: version 0.11.0 in {where}, as"
    # Where hooks of pytest's are of the old form, pluggy warns of it as well.
    assert len(re.findall(rf"^ERROR: .*{re.escape(text)}", ended.err, re.MULTILINE)) == 1, ended.err
    assert run_pytest(tmp_path, *arguments, env=env).outcomes == OUTCOMES
