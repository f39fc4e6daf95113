"""The folders that users name: they are made before the run, or the run is a usage error."""

from __future__ import annotations

import pytest

from .. import system
from ..own import os, own_builtins
from ..system.paths import make_directory
from .settings import Settings, said

own_builtins(globals())


def check_folders(config: pytest.Config, settings: Settings) -> None:
    """Make them.

    :raises pytest.UsageError: naming the option whose folder can't be written.
    """
    if settings.cores is not None and system.PORTABLE:
        raise pytest.UsageError("pytest-fkit: --fkit-cores needs Linux; leave it away here")
    for name, path in (("fkit_cores", settings.cores),):
        if path is None:
            continue
        try:
            make_directory(str(path))
            why = "" if os.access(str(path), os.W_OK | os.X_OK) else "Permission denied"
        except OSError as error:
            why = str(error.strerror)
        if why:
            raise pytest.UsageError(
                f"pytest-fkit: {said(config, name)}: {why}; expected a folder to write to"
            )
