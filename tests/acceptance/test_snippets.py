"""The documentation's commands and snippets: they run, and print what the pages show.

Of commands that show no output only the options are parsed, unless FKIT_EVERY_SNIPPET=1.
"""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pluggy
import pytest
from inner import environment, write_files

from pytest_fkit import hookspecs
from pytest_fkit.config.options import BY_NAME, INI
from pytest_fkit.config.settings import gpu_settings_of, settings_of
from pytest_fkit.gpu.errors.patterns import user_patterns
from snippets import ROOT, Block, blocks, lines_of_pytest, matches

BLOCKS = list(blocks())
EVERY = os.environ.get("FKIT_EVERY_SNIPPET") == "1"

_FKIT = "import sys; from pytest_fkit.journal.command import main; sys.exit(main())"
_OF_CRASHES = ("docs/start/quickstart.md", "docs/start/reading-a-crash.md")


def _files(page: str) -> dict[str, str]:
    """The Python files that a page makes, or a test for its commands to run."""
    own = {each.file: each.text for each in BLOCKS if each.page == page and _is_python(each)}
    return own if any(name.startswith("test_") for name in own) else {"test_a.py": _ANY}


_ANY = "def test_a(): pass\n"


def _is_python(block: Block) -> bool:
    return block.language == "python" and not block.not_run


@functools.lru_cache(maxsize=None)
def _ran(page: str, directory: Path, command: str) -> tuple[int, str]:
    """Run a command of a page, in a directory of the page's own."""
    program, *arguments = shlex.split(command)
    start = {"pytest": ["-m", "pytest", "-p", "no:cacheprovider"], "fkit": ["-c", _FKIT]}[program]
    where = directory / page.replace("/", "-")
    if not where.exists():
        write_files(where, _files(page))
    ended = subprocess.run(
        [sys.executable, *start, *arguments],
        cwd=ROOT if "tests/demo" in command else where,
        env=environment({"COLUMNS": "300", "PYTHONDONTWRITEBYTECODE": "1"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    return ended.returncode, ended.stdout


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


def _run_by_tests() -> list[tuple[str, str, str]]:
    """Page, command and what it shows, in the order of the pages."""
    found = []
    for block in BLOCKS:
        if block.printed_by:
            found.append((block.page, block.printed_by, block.text))
        elif not block.not_run:
            found += [(block.page, command, shown) for command, shown in block.commands]
    return [each for each in found if each[2] or EVERY]


def test_commands_run_and_print_what_is_shown(directory: Path) -> None:
    assert len(_run_by_tests()) >= 5
    for page, command, shown in _run_by_tests():
        status, printed = _ran(page, directory, command)
        assert status in ((0, 1) if page in _OF_CRASHES else (0,)), f"{page}: {command}\n{printed}"
        assert matches(shown, printed), f"{page}: {command}\nshown:\n{shown}\nprinted:\n{printed}"


def test_tests_of_the_pages_pass_or_are_skipped(directory: Path) -> None:
    files = {each.file: each.text for each in BLOCKS if _is_python(each)}
    for ran_above in ("test_first.py", "test_shared.py", "conftest.py"):
        del files[ran_above]
    assert all(name.startswith("test_") for name in files)
    assert len(files) >= 8
    write_files(directory / "all", files)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "--fkit", "-n0", "-q", "-W", "error", "--strict-markers"],
        cwd=directory / "all",
        env=environment(),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout


def test_hooks_of_the_pages_are_hooks() -> None:
    found: set[str] = set()
    for block in BLOCKS:
        if block.file != "conftest.py":
            continue
        names: dict[str, object] = {}
        exec(compile(block.text, str(block), "exec"), names)
        manager = pluggy.PluginManager("pytest")
        manager.add_hookspecs(hookspecs)
        hooks = {name: hook for name, hook in names.items() if name.startswith("pytest_")}
        for hook in hooks.values():
            pytest.hookimpl(hook)  # type: ignore[call-overload]
        manager.register(type("Conftest", (), {k: staticmethod(v) for k, v in hooks.items()})())  # type: ignore[arg-type]
        manager.check_pending()
        found |= hooks.keys()
    assert found == {name for name in vars(hookspecs) if name.startswith("pytest_")}


def _check(config: pytest.Config) -> None:
    settings_of(config)
    gpu_settings_of(config, config.option)
    user_patterns(config)


def test_options_of_all_commands_are_understood(pytester: pytest.Pytester) -> None:
    lines = {tuple(arguments): place for place, arguments in lines_of_pytest()}
    assert len(lines) > 20
    for arguments, place in lines.items():
        try:
            _check(pytester.parseconfig("-p", "no:timeout", *arguments))
        except (pytest.UsageError, SystemExit) as error:
            pytest.fail(f"{place}: {error}")


def test_configurations_are_understood(pytester: pytest.Pytester) -> None:
    shown = [each for each in BLOCKS if each.file.endswith((".ini", ".toml"))]
    assert len(shown) >= 5
    for block in shown:
        if block.file == "pytest.toml" and pytest.version_tuple < (9, 0):
            continue
        path = pytester.path / block.file
        path.write_text(block.text, encoding="utf-8")
        config = pytester.parseconfig("-p", "no:timeout", "--strict-config")
        assert config.inipath == path
        _check(config)
        for line in block.text.splitlines():
            name = line.partition(" =")[0]
            assert not name.startswith("fkit_") or INI in BY_NAME[name].where, block
        path.unlink()


_LANGUAGES = ("", "console", "ini", "python", "text", "toml", "yaml")


def test_blocks_say_what_they_are() -> None:
    for block in BLOCKS:
        assert block.language in ("", "console", "ini", "python", "text", "toml", "yaml", "bash"), (
            block
        )
        if block.language == "text":  # what a program prints, or a drawing
            assert block.printed_by or block.not_run or "/inside/" in block.page, block
        if block.language == "bash":  # a job file, which tests/machines runs
            assert block.not_run, block
        runs = block.commands or block.language in ("python", "ini", "toml", "yaml")
        if runs and not block.not_run:
            assert block.file or block.commands, block
            programs = {command.split()[0] for command, _ in block.commands}
            assert programs <= {"pytest", "fkit"}, block
