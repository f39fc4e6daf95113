"""The folder says in which process a line runs, and imports point one way: down."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Iterator

import pytest

import pytest_fkit

ROOT = Path(pytest_fkit.__file__).parent

LAYERS = (
    "importing", "own", "named_tuple", "system", "protocol", "compat", "config", "gpu", "journal",
    "sandbox", "worker", "controller",
)  # fmt: skip
"""From the bottom to the top; above them are the modules that pytest itself meets."""

FOLDERS = {
    "gpu": (
        "answers",
        "machine",
        "interpreters",
        "throwaway",
        "devices",
        "vendors",
        "slices",
        "errors",
        "health",
    ),
    "journal": (
        "events",
        "added",
        "attempts",
        "masking",
        "history",
        "causes",
        "rates",
        "html",
    ),
    "sandbox": ("process", "child", "host", "keeper"),
    "worker": ("needs_of_tests", "reports", "tests"),
    "controller": ("schedule", "reports", "retry", "repeat", "machines", "workers"),
}
"""The same within a layer; above them are the modules that lie in no folder of it."""


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


def imported(name: str) -> Iterator[str]:
    """The modules of ours that one imports: at its start, later, or for type checkers only."""
    path = MODULES[name]
    parts = name.split(".") if name else []
    package = parts if path.name == "__init__.py" else parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                full = ".".join([*base, alias.name])
                yield full if full in MODULES else ".".join(base)


def place(name: str, order: tuple[str, ...], level: int) -> int:
    parts = name.split(".")
    return order.index(parts[level]) if parts[level:] and parts[level] in order else len(order)


def is_upward(one: str, other: str) -> bool:
    """Whether `other` lies above `one`, which imports it."""
    low, high = place(one, LAYERS, 0), place(other, LAYERS, 0)
    if low != high or low == len(LAYERS):
        return other != "" and high > low
    inner = FOLDERS.get(one.split(".")[0], ())
    return other.count(".") > 0 and place(other, inner, 1) > place(one, inner, 1)


@pytest.mark.parametrize(
    ("one", "other", "upward"),
    [
        ("system.linux", "own", False),
        ("protocol.wire", "protocol.messages", False),
        ("sandbox.child.child", "sandbox.host.host", True),
        ("sandbox.host.host", "sandbox.child.child", False),
        ("journal.reader", "worker.loop", True),
        ("sandbox.process.relay", "sandbox.startup", True),
        ("controller.controller", "plugin", True),
        ("plugin", "controller.controller", False),
        ("controller.reports.recording", "", False),
    ],
)
def test_what_upward_means(one: str, other: str, upward: bool) -> None:
    assert is_upward(one, other) is upward


@pytest.mark.parametrize("name", MODULES, ids=lambda name: name or "pytest_fkit")
def test_imports_point_down(name: str) -> None:
    assert [other for other in imported(name) if is_upward(name, other)] == []


def test_no_modules_import_each_other() -> None:
    left = {name: set(imported(name)) - {name} for name in MODULES}
    before: set[str] = set()
    while left.keys() != before:
        before = set(left)
        used = set().union(*left.values())
        # What imports nothing of the rest, or is not imported by it, is on no circle.
        left = {name: found & before for name, found in left.items() if found & before}
        left = {name: found for name, found in left.items() if name in used}
    assert left == {}


def test_every_folder_has_its_place() -> None:
    folders = {path.parent.relative_to(ROOT) for path in MODULES.values()} - {Path()}
    named = {Path(layer) for layer in LAYERS if (ROOT / layer).is_dir()}
    named |= {Path(layer, each) for layer, inner in FOLDERS.items() for each in inner}
    assert folders <= named


def test_no_two_modules_have_one_name() -> None:
    names = [path.stem for path in MODULES.values() if path.stem != "__init__"]
    assert sorted(names) == sorted(set(names))


def test_no_two_public_classes_have_one_name() -> None:
    names = [
        node.name
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert sorted(names) == sorted(set(names))


def test_no_module_is_hard_to_find_ones_way_in() -> None:
    tables = {"gpu.errors.error_table"}
    lines = {
        name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()
    }
    assert {name: number for name, number in lines.items() if number > 400}.keys() <= tables
