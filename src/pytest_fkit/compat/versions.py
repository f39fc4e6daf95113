"""The versions of pytest and pytest-xdist that were tried, and a check of those that are here.

The private names in this package are tried by ``tests/test_private_api.py``. What is newer than
the newest that was tried may have changed any of them: a run says so at its start, and does not
begin where a name is gone.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from typing import Any, Mapping

import pytest

from .. import __version__
from ..own import own_builtins

own_builtins(globals())


NEWEST = {"pytest": (9, 2), "pytest-xdist": (3, 8)}
"""The versions up to which this one was tried; pyproject.toml has the oldest."""

PRIVATE_NAMES = {
    "pytest": {
        "_pytest._code.code": (
            "ExceptionChainRepr", "ReprEntry", "ReprEntryNative", "ReprFileLocation",
            "ReprFuncArgs", "ReprLocals", "ReprTraceback", "ReprTracebackNative",
        ),
        "_pytest._io.terminalwriter": ("TerminalWriter", "_write_source"),
        "_pytest.capture": (
            "_capture", "_global_capturing", "_start", "is_started", "targetfd", "targetfd_save",
            "tmpfile",
        ),
        "_pytest.config": ("_cleanup_stack", "_inicfg", "_prepareconfig", "create_terminal_writer"),
        "_pytest.debugging": ("_init_pdb", "pytestPDB"),
        "_pytest.fixtures": (
            "_fillfixtures", "_finalizers", "_parent_request", "_scope", "cached_result", "finish",
            "name2fixturedefs",
        ),
        "_pytest.junitxml": ("LogXML", "_add_simple", "node_reporter", "xml_key"),
        "_pytest.logging": ("caplog_records_key", "report_handler"),
        "_pytest.main": ("_setupstate", "resolve_collection_argument"),
        "_pytest.nodes": ("_id", "_report_sections"),
        "_pytest.python": ("_arg2scope", "_fixtureinfo", "_initrequest", "_request"),
        "_pytest.runner": (
            "_update_current_test_var", "check_interactive_exception", "stack", "teardown_exact",
        ),
        "_pytest.scope": ("Scope",),
        "_pytest.skipping": ("evaluate_skip_marks", "evaluate_xfail_marks", "xfailed_key"),
        "_pytest.terminal": ("_tw",),
        "_pytest.threadexception": ("collect_thread_exception",),
        "_pytest.tmpdir": ("_tmp_path_factory",),
        "_pytest.unraisableexception": ("collect_unraisable",),
        "_pytest.warnings": ("catch_warnings_for_item",),
    },
    "pytest-xdist": {
        "xdist.dsession": (
            "Interrupted", "_active_nodes", "_clone_node", "_failed_nodes_count", "_handlefailures",
            "_session", "_summary_report", "handle_crashitem", "queue", "report_line", "sched",
            "shuttingdown", "triggershutdown", "worker_errordown",
        ),
        "xdist.remote": (
            "Marker", "SHUTDOWN", "WorkerInteractor", "_get_next_item_index", "handle_command",
            "testrunuid", "torun", "workerid",
        ),
        "xdist.report": ("report_collection_diff",),
    },
}  # fmt: skip
"""Names that this package uses, by module, as the newest version that was tried has them."""


def installed() -> dict[str, str]:
    """The versions that this process has loaded."""
    xdist: Any = sys.modules.get("xdist")  # not there by -p no:xdist
    found = {"pytest": pytest.__version__}
    return found if xdist is None else {**found, "pytest-xdist": xdist.__version__}


def untried(versions: Mapping[str, str]) -> list[str]:
    """Names of the packages whose version, major and minor, is newer than any that was tried."""
    return [name for name, version in versions.items() if _major_minor(version) > NEWEST[name]]


def _major_minor(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def warning(versions: Mapping[str, str]) -> str:
    """The line that says what was never tried, "" if all was."""
    names = untried(versions)
    if not names:
        return ""
    newest = [".".join(map(str, NEWEST[name])) for name in names]
    were = "was" if len(names) == 1 else "were"
    return (
        f"{' and '.join(f'{name} {versions[name]}' for name in names)} {were} never tried with "
        f"pytest-fkit {__version__}; the newest tried: {' and '.join(newest)}"
    )


def missing(names: list[str]) -> list[str]:
    """Private names of these packages that are gone.

    Looked for in the sources: most are attributes of objects that are not there yet.
    """
    found = []
    for module, known in (each for name in names for each in PRIVATE_NAMES[name].items()):
        source = _source(module)
        found += [
            f"{module}.{name}"
            for name in known
            if source is not None and not re.search(rf"\b{name}\b", source)
        ]
    return found


def _source(module: str) -> str | None:
    """The text of a module, "" if it does not exist, None where there are no sources."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        return ""
    get_source = getattr(spec.loader, "get_source", None)
    return None if get_source is None else get_source(module)


def check_versions() -> None:
    """Check before the modules that use private names are imported.

    :raises pytest.UsageError: naming what is gone.
    """
    versions = installed()
    names = untried(versions)
    gone = missing(names) if names else []
    if gone:
        raise pytest.UsageError(
            f"pytest-fkit: {warning(versions)}; private names that it needs are gone: "
            f"{', '.join(gone)}. Install a version that was tried, or run with --no-fkit"
        )
