"""The pages' tables on GPUs, row by row and column by column, on machines that do not exist."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Callable, Mapping

import pytest
from gpu_runs import run_on
from inner import run_pytest, write_files

import fleet as fleets
from pytest_fkit.gpu.errors.error_table import CATEGORIES, DEVICE, FINAL, UNHEARD, Category

Fleet = Callable[..., Mapping[str, str]]

DOCS = Path(__file__).resolve().parents[2] / "docs"
VENDORS: dict[str, Callable[[int], list[fleets.Gpu]]] = {
    "NVIDIA": fleets.nvidia,
    "AMD": fleets.amd,
}


def _table(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, its head included."""
    below = (DOCS / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    lines = below.partition("\n|")[2].partition("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [rows[0], *rows[2:]]


CONFIGURATIONS = _table("gpus/quickstart.md", "Recommended configurations")[1:]
ENVIRONMENT = _table("gpus/slices.md", "The environment of a worker")


def test_the_tables_are_there() -> None:
    assert [row[0] for row in CONFIGURATIONS] == [
        "8 GPUs, 2 each",
        "8 GPUs, 1 each",
        "4 GPUs, 2 each",
        "no GPU",
    ]
    assert len(ENVIRONMENT) == 8


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("row", CONFIGURATIONS[:-1], ids=lambda row: str(row[0]))
def test_a_recommended_configuration(
    fleet: Fleet, tmp_path: Path, row: list[str], vendor: str
) -> None:
    machine, command, owners = row
    pytest_, fkit, *arguments = shlex.split(command.strip("`"))
    assert (pytest_, fkit) == ("pytest", "--fkit")
    expected = dict(owner.split() for owner in owners.split("; "))
    gpus = VENDORS[vendor](int(machine.split()[0]))
    ended = run_on(fleet(gpus), tmp_path, *arguments, workers=len(expected))
    assert {name: ",".join(seen.gpus) for name, seen in ended.seen.items()} == expected
    picked = {"NVIDIA": "CUDA_VISIBLE_DEVICES", "AMD": "ROCR_VISIBLE_DEVICES"}[vendor]
    assert {name: seen.environ[picked] for name, seen in ended.seen.items()} == expected
    assert all(seen.same == [True, True, True] for seen in ended.seen.values())
    assert f": {owners.replace('; ', ' | ')}; isolation: " in ended.header[-1]
    assert ended.header[-1].startswith(f"fkit: {len(expected)} workers, {len(gpus)} {vendor} GPUs")
    assert ended.inner.status == 0


def test_the_recommended_configuration_without_gpus(fleet: Fleet, tmp_path: Path) -> None:
    *_, (_, command, owners) = CONFIGURATIONS
    assert owners == "nothing; one worker per core"
    ended = run_on(fleet(), tmp_path, *shlex.split(command.strip("`"))[2:])
    # What xdist says without us.
    plain = write_files(tmp_path / "plain", {"test_x.py": "def test_x(): pass\n"})
    ended_plain = run_pytest(plain, "-p", "no:fkit", "-n", "auto")
    [created] = [line for line in ended_plain.lines if line.startswith("created: ")]
    assert created in ended.inner.lines
    assert all(
        set(seen.environ) == {"FKIT_WORKER_ID", "FKIT_GPU_IDS"} for seen in ended.seen.values()
    )


@pytest.mark.parametrize("column", range(1, 5), ids=lambda column: ENVIRONMENT[0][column])
def test_the_environment_of_a_worker(fleet: Fleet, tmp_path: Path, column: int) -> None:
    vendor, _, option = ENVIRONMENT[0][column].replace("`", "").partition(", ")
    gpus = VENDORS[vendor](4) if vendor in VENDORS else []
    ended = run_on(fleet(gpus), tmp_path, "-n2", *filter(None, [option]), workers=2)
    environ = ended.seen["gw1"].environ
    for row in ENVIRONMENT[1:]:
        name, expected = row[0].strip("`"), row[column]
        if expected == "as inherited":
            assert name not in environ
        elif expected == "a port":
            assert 1024 <= int(environ[name]) < 65536
        else:
            assert environ[name] == expected.replace("empty", "")


def test_the_categories_of_gpu_errors() -> None:
    deaths = {UNHEARD: "nothing", FINAL: "final", DEVICE: "the device"}
    expected = [
        [f"`{each.name}`", *(_yes(flag) for flag in _flags(each)), deaths[each.deaths]]
        for each in CATEGORIES
        if each.is_gpu or each.of_machine
    ]
    assert [[row[0], *row[2:]] for row in _table("gpus/errors.md", "Categories")[1:]] == expected


def _flags(category: Category) -> tuple[bool, ...]:
    return category.counts, category.probe, category.poisons, category.alone


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
