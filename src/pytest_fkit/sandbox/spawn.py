"""Hosts that are fresh interpreters, for modules whose import left what does not survive a fork."""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
from typing import Any, NoReturn, cast

import pytest

from .. import private_api, system
from ..wire import carriable
from .descriptors import ERR, SLOTS, Files, Link

PREFIX = "spawn:"
"""Begins the name of a shared process that is spawned; the node id of its module follows."""

# -m would ask an import path that may have been a worker's only.
_BOOTSTRAP = (
    "import marshal, os, sys; "
    "spec = marshal.loads(os.pread(int(sys.argv[1]), int(sys.argv[2]), 0)); "
    "sys.path[:] = spec['path']; "
    "from pytest_fkit.sandbox.spawned import main; "
    "main(spec, int(sys.argv[3]))"
)


def exec_host(
    session: pytest.Session, share: str, link: Link, files: Files, keeper: int
) -> NoReturn:
    """Become a fresh interpreter that collects one module and serves the keeper.

    Called in a new process.
    """
    status = 70  # EX_SOFTWARE
    try:
        os.setsid()
        system.die_with_parent(keeper)
        files.install()
        data = marshal.dumps(_spec(session, share[len(PREFIX) :]))
        spec = system.anonymous_file("spec")
        os.write(spec, data)
        for descriptor in (*SLOTS, link.fileno(), spec):
            os.set_inheritable(descriptor, True)
        flags = cast("Any", subprocess)._args_from_interpreter_flags()
        numbers = [str(spec), str(len(data)), str(link.fileno())]
        os.execv(sys.executable, [sys.executable, *flags, "-c", _BOOTSTRAP, *numbers])  # noqa: S606
    except BaseException as error:  # noqa: BLE001 (nothing may return into the keeper's code)
        os.write(ERR, repr(error).encode("utf-8", "replace"))
    finally:
        os._exit(status)


def _spec(session: pytest.Session, module: str) -> dict[str, Any]:
    config = session.config
    orders = {
        name: value for name, value in getattr(config, "workerinput", {}).items() if name != "fkit"
    }
    return {
        "path": [str(entry) for entry in sys.path],
        "args": private_api.arguments_for_file(config, str(config.rootpath / module)),
        "workerinput": carriable(orders),
        "basetemp": private_api.basetemp(config),
        "positions": {
            item.nodeid: number
            for number, item in enumerate(session.items)
            if item.nodeid.partition("::")[0] == module
        },
    }
