"""The main program of a host that is a fresh interpreter."""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, Callable, Generator, Sequence

import pytest

from ..compat import xdist_worker
from ..own import hide, os, own_builtins
from ..protocol.channels import Pipes
from ..protocol.descriptors import slots
from ..protocol.messages import Ready
from .host.host import Host
from .process.coverage import running_coverage
from .process.output import capture_into_own_files
from .process.steps import run_steps
from .process.test_process import equip, write_stacks_of_deaths

if TYPE_CHECKING:
    from pathlib import Path

own_builtins(globals())


def main(spec: dict[str, Any], reader: int, writer: int, modules: set[str]) -> None:
    """Collect the module and run its tests as the keeper says.

    :param spec: see spawn.py.
    :param reader: of the pipe that comes from the keeper.
    :param writer: of the one to it.
    :param modules: names of those that were imported before ours.
    """
    sys.path[:] = spec["startup_path"]
    hide(modules)
    slots.begin_at(spec["slots"])
    slots.in_use = True
    for inherited in (*slots, reader, writer):
        os.set_inheritable(inherited, False)
    write_stacks_of_deaths()
    # What pytest prints here is seen only if it fails before the first test.
    os.dup2(slots.out, 1)
    os.dup2(slots.err, 2)
    sys.argv[:] = spec["argv"]
    sys.dont_write_bytecode = not spec["writes_bytecode"]
    link = Pipes(reader, writer)
    os.chdir(spec["directory"])
    config = xdist_worker.worker_config(
        spec["arguments"],
        spec["workerinput"],
        spec["basetemp"],
        [sys.modules[__name__], _WorkersPath(spec["path"])],
    )
    if spec["collect"]:
        config.args = spec["collect"]
        config.pluginmanager.register(_Only(spec["paths"]), "fkit-only")
    config.pluginmanager.register(Spawned(link, spec), "fkit-spawned")
    sys.exit(int(config.hook.pytest_cmdline_main(config=config)))


class _WorkersPath:
    """Plugin: before conftest files are imported, but after plugins are, the path is the worker's.

    :param path: the worker's ``sys.path``.
    """

    def __init__(self, path: list[str]) -> None:
        self._path = path

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_load_initial_conftests(self) -> Generator[None, object, object]:
        """Set it."""
        sys.path[:] = self._path
        return (yield)


class _Only:
    """Plugin: of what arguments lead to, collect these files and nothing else.

    :param paths: theirs, and those of directories.
    """

    def __init__(self, paths: list[str]) -> None:
        self._paths = frozenset(paths)

    @pytest.hookimpl(tryfirst=True)
    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Ignore all others."""
        path = str(collection_path)
        if path in self._paths:
            return None
        # Before pytest 8, a package is the file that makes a directory one.
        directory = path[: -len("/__init__.py")] if path.endswith("/__init__.py") else path
        leads = any(each.startswith(f"{directory.rstrip('/')}/") for each in self._paths)
        return None if leads else True


class Spawned:
    """Plugin of such an interpreter: its collection and its test loop.

    :param spec: see spawn.py.
    """

    def __init__(self, link: Pipes, spec: dict[str, Any]) -> None:
        self._link = link
        self._spec = spec
        self._errors: list[str] = []
        self._deselected: set[str] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """Prepare for imports that end the process, or raise: the tests report that."""
        write_stacks_of_deaths()  # again: pytest has its own way
        os.ftruncate(slots.out, 0)  # the header, which plain pytest does not show a second time
        capture_into_own_files(session.config)
        session.config.option.continue_on_collection_errors = True
        self._maxfail = session.config.option.maxfail
        session.config.option.maxfail = 0

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep errors."""
        if report.failed:
            self._errors.append(f"{report.nodeid}:\n{report.longreprtext}")

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Keep their names."""
        self._deselected |= {item.nodeid for item in items}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run tests until the keeper says that there are no more."""
        session.config.option.maxfail = self._maxfail
        items = self._known(session)
        if self._spec["spare"] and len(items) < len(self._spec["tests"]):
            # What failed here may have failed because others run the same module right now.
            return True
        session.items[:] = [items[position] for position in sorted(items)]
        session.testscollected = len(items)
        os.chdir(self._spec["current"])
        sys.path[:] = self._spec["path"]  # again: options and conftest files add to it
        os.ftruncate(slots.out, 0)
        process = equip(session, running_coverage())
        self._link.send(Ready())
        host = Host(session, process, items.get, self._absence(session))
        run_steps(host.serve_here(self._link))
        return True

    def _known(self, session: pytest.Session) -> dict[int, pytest.Item]:
        """The tests by their positions in the worker's collection; node ids may repeat."""
        positions: dict[str, deque[int]] = defaultdict(deque)
        for nodeid, position in self._spec["tests"]:
            positions[nodeid].append(position)
        return {
            positions[item.nodeid].popleft(): item
            for item in session.items
            if positions[item.nodeid]
        }

    def _absence(self, session: pytest.Session) -> Callable[[int], str]:
        """What says why there is no test at a position."""
        nodeids = {position: nodeid for nodeid, position in self._spec["tests"]}
        collected = session.testscollected

        def why(position: int) -> str:
            text = f"the fresh interpreter that was to run this test{self._differing()}"
            if nodeids[position] in self._deselected:
                return f"{text} collected it, and then a hook or an option deselected it"
            if self._errors:
                return "\n\n".join(
                    [f"{text} did not collect it, because of an error", *self._errors]
                )
            return (
                f"{text} did not collect it, but {collected} of the {len(nodeids)} tests that "
                "the worker collected there; is what is collected different each time?"
            )

        return why

    def _differing(self) -> str:
        environ = self._spec["environ"]
        if not environ:
            return ""
        return f" (with {' '.join(f'{name}={text}' for name, text in environ)})"
