"""The state of GPUs that do not exist, which changes while a run goes on.

``plan.json`` beside ``fleet.json`` says at which call of the framework a GPU comes into another
state, by its ordinal and the number of the call, from 1 on: ``{"3": {"5": "sick"}}``. Calls are
counted over all processes. A new state is written into ``fleet.json``, where the driver's library
and the vendor's tools find it, too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from pathlib import Path
from typing import Iterator, Mapping

PLAN = "plan.json"


def count_call(root: Path, ordinal: int) -> str:
    """Count a call of the framework to a GPU; the state that the GPU is in by then."""
    with _locked(root):
        calls = root / f"calls-{ordinal}"
        number = calls_of(root, ordinal) + 1
        calls.write_text(str(number))
        plan = root / PLAN
        if plan.exists():
            state = json.loads(plan.read_text()).get(str(ordinal), {}).get(str(number))
            if state is not None:
                _write(root, ordinal, state)
        return _read(root, ordinal)


def calls_of(root: Path, ordinal: int) -> int:
    """How many calls there were to a GPU."""
    calls = root / f"calls-{ordinal}"
    return int(calls.read_text()) if calls.exists() else 0


def plan(root: Path, changes: Mapping[int, Mapping[int, str]]) -> None:
    """From a call of the framework on, a GPU is in another state: by ordinal and call."""
    (root / PLAN).write_text(json.dumps(changes))


def set_state(root: Path, ordinal: int, state: str) -> None:
    """From now on a GPU is in this state."""
    with _locked(root):
        _write(root, ordinal, state)


def _read(root: Path, ordinal: int) -> str:
    gpus = json.loads((root / "fleet.json").read_text())["gpus"]
    return str(next(gpu["state"] for gpu in gpus if gpu["ordinal"] == ordinal))


def _write(root: Path, ordinal: int, state: str) -> None:
    lines = (root / "fleet.json").read_text().splitlines(keepends=True)
    for number, line in enumerate(lines):
        if f'"ordinal": {ordinal},' in line:
            lines[number] = re.sub(r'"state": "\w+"', f'"state": "{state}"', line)
    new = root / "fleet.json.new"
    new.write_text("".join(lines))
    new.replace(root / "fleet.json")


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    descriptor = os.open(root / "lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
