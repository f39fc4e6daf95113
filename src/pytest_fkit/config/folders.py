"""The folders and programs that users name: there before the run, or the run is a usage error."""

from __future__ import annotations

from typing import Callable

import pytest

from .. import system
from ..compat.pytest_session import temporary
from ..own import os, own_builtins
from ..system.paths import claim_directory, file_name, joined, make_directory, program
from .settings import SETTINGS, Settings, said

own_builtins(globals())

ARTIFACTS: pytest.StashKey[str] = pytest.StashKey()
"""In an item's stash: the folder of a test, "" if it has none yet."""


def check_folders(config: pytest.Config, settings: Settings) -> None:
    """Make the folders, and look for the wrapper.

    :raises pytest.UsageError: naming the option that is wrong.
    """
    if settings.cores is not None and system.PORTABLE:
        raise pytest.UsageError("pytest-fkit: --fkit-cores needs Linux; leave it out here")
    for name, path in (("fkit_cores", settings.cores), ("fkit_artifacts", settings.artifacts)):
        why = "" if path is None else _refusal(str(path))
        if why:
            raise pytest.UsageError(
                f"pytest-fkit: {said(config, name)}: {why}; expected a folder to write to"
            )
    remote = any("popen" not in str(each) for each in config.getoption("tx", None) or ())
    why = "" if remote else wrapper_refusal(config, settings.wrapper)
    if why:
        raise pytest.UsageError(f"pytest-fkit: {said(config, 'fkit_wrapper')}: {why}")


def _refusal(path: str) -> str:
    """Why a folder can't be written, or ""."""
    try:
        make_directory(path)
    except OSError as error:
        return str(error.strerror)
    return "" if os.access(path, os.W_OK | os.X_OK) else "Permission denied"


def wrapper_refusal(config: pytest.Config, wrapper: tuple[str, ...]) -> str:
    """Why a wrapper can't be run, or ""."""
    directory = str(config.invocation_params.dir)
    path = os.environ.get("PATH", os.defpath)
    if not wrapper or wrapper_program(wrapper[0], directory, path):
        return ""
    return f"there is no program {wrapper[0]!r}; install it, or give its path"


def wrapper_program(name: str, directory: str, path: str) -> str:
    """The path of a wrapper's program, "" if there is none.

    :param directory: to which the name is relative, if it is a path.
    :param path: the variable.
    """
    if "/" not in name:
        return program(name, path.split(os.pathsep))
    place, _, last = joined(directory, name).rpartition("/")
    return program(last, [place or "/"])


def claim_artifacts(config: pytest.Config, nodeid: str) -> str:
    """Make a new folder for a test.

    :raises OSError: if it can't be made.
    :raises pytest.UsageError: if nobody says where.
    """
    settings = config.stash.get(SETTINGS, None)
    chosen = None if settings is None else settings.artifacts
    root = temporary(config, "artifacts") if chosen is None else str(chosen)
    if not root:
        raise pytest.UsageError(
            "there is no temporary directory for a test's folder (-p no:tmpdir); "
            "--fkit-artifacts=DIR names a place"
        )
    return claim_directory(root, file_name(nodeid))


def artifacts_of(item: pytest.Item, tell: Callable[[str], None]) -> str:
    """The folder of a test, which is made when it is asked for.

    :param tell: hears of one that is made.
    :raises OSError, pytest.UsageError: see :func:`claim_artifacts`.
    """
    path = item.stash.get(ARTIFACTS, "")
    if not path:
        path = item.stash[ARTIFACTS] = claim_artifacts(item.config, item.nodeid)
        tell(path)
    return path
