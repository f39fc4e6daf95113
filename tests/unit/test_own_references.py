"""Code of ours that runs where code of a suite has run calls nothing that the suite can change.

Read from the sources: what such a module imports, and that its functions have built-ins of ours.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import os
import sys
import textwrap
import time
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest

import pytest_fkit
from pytest_fkit import own

PACKAGE = Path(pytest_fkit.__file__).parent

RUN_AMONG_USER_CODE = ("controller", "journal", "sandbox", "system", "worker")
"""All modules in these folders do, and what they import of ours."""

EXCEPTED = {
    "initial_conftests": "runs before the initial conftest files are loaded",
    "config.declaration": "is imported where pytest runs without --fkit, and runs before any test",
    "config.others_options": "is imported without --fkit, too, and runs before any test",
    "config.options": "is imported where pytest runs without --fkit; it is a table",
    "gpu.slices.handshake": "is sent to other machines as source, where it stands alone",
    "gpu.interpreters": "is the main program of helper interpreters, which run no user code",
    "config.first_environment": "is imported without --fkit, too; os.environ is one object",
    "controller.machines.questions": "is sent to other machines as source, where it stands alone",
    "gpu.slices.ports": "is sent to other machines as source, where it stands alone",
    "journal.command": "is a program of its own, which runs no user code",
    "journal.html.details": "belongs to that program",
    "journal.html.page": "belongs to that program",
    "journal.subcommand": "belongs to that program",
    "journal.quarantine_check": "belongs to that program",
    "journal.diff": "belongs to that program",
    "journal.junit": "belongs to that program",
    "config.numprocesses": "is imported where pytest runs without --fkit, and runs before any test",
    "importing": "makes the copy of the built-in names",
    "own": "makes the references",
}

KEPT = {name for name, value in vars(own).items() if type(value).__name__ == "_Kept"}

INSTEAD = {
    "_socket": "own.socket",
    "builtins": "own_builtins",
    "contextlib": "own.contextmanager, own.suppress",
    "inspect": "types, or the object itself",
    "io": "paths.read_text",
    "linecache": "system.stack_texts",
    "pathlib": "paths; it may be imported for type annotations",
    "shutil": "own.os, paths",
    "tempfile": "system.anonymous_file",
    "traceback": "system.stack_texts",
    **{name: f"own.{name}" for name in KEPT},
}
"""What of the standard library can be patched, or calls on our behalf what is."""

ALLOWED = {
    (
        "controller.workers.preparation",
        "pathlib",
    ): "reads a file of the run's options, before any test",
    (
        "controller.reports.step_summary",
        "pathlib",
    ): "writes when all tests are over",
    ("controller.reports.resume", "pathlib"): "reads the journal before any test",
    ("controller.reports.recording", "pathlib"): "names files, before any test",
    ("journal.files", "pathlib"): "opens, or moves, files before any test",
    ("journal.reader", "pathlib"): "reads the journal before any test",
    ("journal.summary", "io"): "text in memory, for the end of the run",
    ("compat.pytest_output", "io"): "makes a class of text in memory, before any test",
    ("config.settings", "pathlib"): "reads options, before any test",
    (
        "worker.reports.rerunfailures",
        "inspect",
    ): "of a function of pytest-rerunfailures, in the worker",
}

WRITTEN_IN_PYTHON = {
    "ctypes.CFUNCTYPE": "called when the module is imported",
    "copy.copy": "of pytest-benchmark's object, which is a plain one",
    "os.fdopen": "in the controller, at the end of a probe",
    "threading.current_thread": "asks get_ident, which whoever patches it expects to be asked",
    "threading.enumerate": "reads a dictionary under a lock, neither of them a public name",
    "threading.main_thread": "returns an object",
    "time.time": "ours",
}
"""Functions of the standard library that look names up in modules that a suite can change."""


class Module(NamedTuple):
    name: str
    path: Path
    tree: ast.Module

    @property
    def package(self) -> list[str]:
        parts = self.name.split(".") if self.name else []
        return parts if self.path.name == "__init__.py" else parts[:-1]


def read(root: Path) -> dict[str, Module]:
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8")))
    return found


def run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module, but for what is there for type checkers only."""
    for child in ast.iter_child_nodes(tree):
        if (
            isinstance(child, ast.If)
            and isinstance(child.test, ast.Name)
            and child.test.id == "TYPE_CHECKING"
        ):
            for other in child.orelse:
                yield other
                yield from run_time(other)
            continue
        yield child
        yield from run_time(child)


def own_imports(module: Module) -> Iterator[str]:
    """The names of our modules that one may import, now or later."""
    for node in run_time(module.tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = module.package
            base = package[: len(package) - node.level + 1]
            base += node.module.split(".") if node.module else []
            yield ".".join(base)
            for alias in node.names:
                yield ".".join([*base, alias.name])


def among_user_code(modules: dict[str, Module]) -> dict[str, Module]:
    queue = [name for name in modules if name.split(".")[0] in RUN_AMONG_USER_CODE]
    found: dict[str, Module] = {}
    while queue:
        name = queue.pop()
        if name in modules and name not in found and name not in EXCEPTED:
            found[name] = modules[name]
            queue += own_imports(modules[name])
    return found


def foreign_imports(module: Module) -> Iterator[str]:
    for node in run_time(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module is not None
            yield node.module.split(".")[0]


def is_open(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return (function.value.id, function.attr) == ("builtins", "open")
    return isinstance(function, ast.Name) and function.id == "open"


def faults(module: Module) -> list[str]:
    """What breaks the rule, in words."""
    found = [
        f"{module.name} imports {name}; use {INSTEAD[name]}"
        for name in foreign_imports(module)
        if name in INSTEAD and (module.name, name) not in ALLOWED
    ]
    found += [
        f"{module.name} calls open() in line {node.lineno}; use paths.read_text"
        for node in run_time(module.tree)
        if isinstance(node, ast.Call) and is_open(node.func)
    ]
    if not has_own_builtins(module.tree):
        found.append(
            f"{module.name} does not say own_builtins(globals()) before its first function"
        )
    return found


def kept_functions(module: Module) -> Iterator[str]:
    """What of :mod:`.own` a module uses that is written in Python, as in "os.fdopen"."""
    for node in run_time(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            kept = getattr(own, node.value.id, None) if node.value.id in KEPT else None
            if inspect.isfunction(getattr(kept, node.attr, None)):
                yield f"{node.value.id}.{node.attr}"


_OWN_BUILTINS = ast.dump(ast.parse("own_builtins(globals())").body[0])


def has_own_builtins(tree: ast.Module) -> bool:
    for node in tree.body:
        if ast.dump(node) == _OWN_BUILTINS:
            return True
        inner = (child for child in ast.walk(node) if not isinstance(node, ast.If))
        if any(isinstance(child, (ast.FunctionDef, ast.ClassDef, ast.Lambda)) for child in inner):
            return False
    return True


MODULES = read(PACKAGE)

_SYS_MODULES = ast.dump(ast.parse("sys.modules", mode="eval").body)


def test_modules_that_run_among_user_code_call_nothing_that_it_can_change() -> None:
    wrong = [text for module in among_user_code(MODULES).values() for text in faults(module)]
    assert not wrong, "\n".join(wrong)


def test_functions_that_are_kept_look_nothing_up_that_it_can_change() -> None:
    found = {
        name for module in among_user_code(MODULES).values() for name in kept_functions(module)
    }
    assert found == set(WRITTEN_IN_PYTHON)


def while_imported(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module outside of functions."""
    for child in ast.iter_child_nodes(tree):
        if not isinstance(child, (ast.FunctionDef, ast.Lambda)):
            yield child
            yield from while_imported(child)


def test_no_module_relies_on_what_others_have_imported() -> None:
    """What the standard library imports by itself differs from Python to Python."""
    wrong = [
        f"{name}, line {node.lineno}"
        for name, module in MODULES.items()
        for node in while_imported(module.tree)
        if isinstance(node, ast.Subscript) and ast.dump(node.value) == _SYS_MODULES
    ]
    assert not wrong, "\n".join(wrong)


def test_no_exception_is_made_without_need() -> None:
    assert set(EXCEPTED) <= set(MODULES)
    checked = among_user_code(MODULES)
    for name, import_ in ALLOWED:
        assert import_ in set(foreign_imports(checked[name])), name


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import os", "imports os"),
        ("def f():\n    import os.path", "imports os"),
        ("from os import fspath", "imports os"),
        ("import _socket", "imports _socket"),
        ("from time import monotonic as m", "imports time"),
        ("from contextlib import suppress", "imports contextlib"),
        ("from pathlib import Path", "imports pathlib"),
        ("import linecache", "imports linecache"),
        ("def f(): return open('x')", "calls open"),
        ("def f(): pass\nown_builtins(globals())", "own_builtins"),
        ("class C: pass", "own_builtins"),
        ("f = lambda: None", "own_builtins"),
        ("if TYPE_CHECKING:\n    x = 1\nelse:\n    import os", "imports os"),
    ],
)
def test_a_module_that_breaks_the_rule_is_found(tmp_path: Path, source: str, fault: str) -> None:
    for folder in ("sandbox", "lib"):
        (tmp_path / folder).mkdir()
    begin = "" if "own_builtins" in fault else "own_builtins(globals())\n"
    (tmp_path / "sandbox" / "user.py").write_text("def f():\n    from ..lib import broken")
    (tmp_path / "lib" / "broken.py").write_text(begin + source)
    (tmp_path / "lib" / "unused.py").write_text("import os")
    modules = among_user_code(read(tmp_path))
    assert set(modules) == {"sandbox.user", "lib.broken"}
    assert any(fault in text for text in faults(modules["lib.broken"]))


def test_what_is_there_for_type_checkers_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    source = """
        if TYPE_CHECKING:
            from pathlib import Path
            import os
        own_builtins(globals())
        def f(): pass
    """
    (tmp_path / "sandbox" / "right.py").write_text(textwrap.dedent(source))
    [module] = among_user_code(read(tmp_path)).values()
    assert not faults(module)


def test_what_is_kept_is_not_what_others_change(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patches:
        for name in ("getpid", "fstat", "write"):
            patches.setattr(os, name, broken)
        for name in ("time", "monotonic", "sleep", "clock_gettime"):
            patches.setattr(time, name, broken)
        patches.setattr(builtins, "repr", broken)
        kept = own.os.getpid(), own.time.time(), own.time.monotonic()
        frames = type(own.suppress.__enter__.__globals__["__builtins__"]["repr"])
    assert kept[0] == os.getpid()
    assert abs(kept[1] - time.time()) < 10
    assert abs(kept[2] - time.monotonic()) < 10
    assert frames is type(len)


def test_no_warnings_needs_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = False
    with monkeypatch.context() as patch:  # pytest itself needs the module
        patch.delitem(sys.modules, "warnings")
        with own.no_warnings():
            entered = True
    assert entered


def raise_value_error() -> None:
    raise ValueError


def test_a_block_of_ours_does_as_contextlibs() -> None:
    events = []

    @own.contextmanager
    def block(swallows: bool) -> Iterator[str]:
        try:
            yield "value"
        except ValueError:
            events.append("raised")
            if not swallows:
                raise
        finally:
            events.append("end")

    with block(swallows=True) as value:
        events.append(value)
        raise_value_error()
    with pytest.raises(ValueError, match="again"), block(swallows=False):
        raise ValueError("again")
    with pytest.raises(StopIteration), block(swallows=True):
        raise StopIteration
    with block(swallows=True):
        events.append("body")
    assert events == ["value", "raised", "end", "raised", "end", "end", "body", "end"]
