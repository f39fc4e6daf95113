"""Every command on journals that somebody damaged, cut or made up: an answer or a message."""

from __future__ import annotations

import copy
import json
import os
import random
import re
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Tuple, Union

import pytest

from pytest_fkit.journal.command import COMMANDS, main
from pytest_fkit.journal.shapes import Shapes, schema

Event = Dict[str, Any]

MUTATED = 600


def event(kind: str, **fields: Any) -> Event:
    return {"event": kind, "wall": 1e9, "mono": 5.0, **fields}


ON = {"worker": "gw0", "gpus": ["0", "1"]}
REPORTS = [
    {"when": "setup", "outcome": "passed", "duration": 0.1, "start": 1e9, "properties": [["a", 1]]},
    {
        "when": "call", "outcome": "failed", "duration": 0.2, "text": "E   x\na.py:3: ValueError",
        "message": "ValueError: x", "sections": [["Captured stdout call", "said"]], "rerun": 1,
        "fkit_death": "SIGSEGV at a.py:3 in f", "added": {"worker": ["str", "x"]},
    },
    {"when": "teardown", "outcome": "skipped", "duration": 0, "skip": ["a.py", 3, "Skipped: x"]},
]  # fmt: skip
XID = {"xid": 79, "gpus": ["0"], "name": "fell off", "source": "NVML", "pid": 5}
WIDE = {"what": "setup", "label": "x", "start": 1e9, "duration": 0.1}
JOURNAL = [
    event(
        "run", format="pytest-fkit journal", schema="1.0", id="a", session="a", arguments=["-x"],
        directory="/a", rootdir="/a/b", versions={"pytest": "9"}, drivers={"nvidia": "550"},
        commit="f" * 40, options={"dist": "loadgroup"}, machine={"host": "h", "cpus": 4},
        devices=[{"id": "0"}], slices={"gw0": ["0"]},
    ),
    event("worker_up", pid=4, **ON),
    event("collection", worker="gw0", tests=3, nodeids=["a.py::t@g", "a.py::u[1]", "a.py::v"]),
    event("resume", kept=1, gone=["a.py::w"], new=1),
    event("gpus", used={"0": {"memory": 5, "utilisation": 7}}),
    event("start", test="a.py::t@g", worker="gw0", location=["a.py", 3, "t"]),
    event("report", test="a.py::t@g", worker="gw0", **REPORTS[0]),
    event("gpu_error", test="a.py::t@g", category="memory", message="x", **ON),
    event("network_error", test="a.py::t@g", message="ReadTimeout: timed out", **ON),
    event("retried", test="a.py::t@g", attempt=1, category="memory", to="gw1", to_gpus=["2"], **ON),
    event(
        "attempt", test="a.py::t@g", attempt=2, pid=5, start=1e9, duration=1.5, user=1.0,
        phases=[{"when": "call", "outcome": "died", "start": 1e9, "duration": 1}], system=0.1,
        ending={"type": "Signaled", "title": "SIGSEGV", "signal": 11}, peak_memory=5e7,
        minor_faults=3, read=4, gpu_peak_memory=6e9, wide=[WIDE], metrics={"speed": 1.5},
        xids=[XID], again=False, **ON,
    ),
    event(
        "verdict", test="a.py::t@g", worker="gw0", attempt=2, outcome="error", message="x",
        location=["a.py", None, "t"], reports=REPORTS,
    ),
    event("attempt", test="a.py::u[1]", start=1e9, duration=0.5, worker="gw0"),
    event("verdict", test="a.py::u[1]", worker="gw0", attempt=1, outcome="passed", reports=[]),
    event("xid", **XID),
    event("probed", answer="sick", reason="x", **ON),
    event("retired", reason="x", **ON),
    event("slow", test="a.py::v", phase="call", seconds=60.0, **ON),
    event("start", test="a.py::v", worker="gw0", location=None),
    event("worker_down", worker="gw0", error="died"),
    event("end", exitstatus=1),
]  # fmt: skip


def lines(events: list[Event]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in events)


# --- mutations ---

ODD: tuple[Any, ...] = (
    None, True, "", "\ud800", "x" * 50, 0, -1, 1.5, 1e19, -1e19, [], {}, [[]], [None], {"": None},
    ["x", "y", "z"], [1, 2], {"x": {"y": 1}},
)  # fmt: skip

Place = Tuple[Any, Union[str, int]]


def places(value: Any) -> Iterator[Place]:
    """Where something is: containers, with keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places(value[key])


def changed_value(events: list[Event], chance: random.Random) -> bytes:
    container, key = chance.choice(list(places(events)))
    container[key] = chance.choice(ODD)
    return lines(events)


def removed(events: list[Event], chance: random.Random) -> bytes:
    container, key = chance.choice(list(places(events)))
    del container[key]
    return lines(events)


def twice(events: list[Event], chance: random.Random) -> bytes:
    events.insert(chance.randrange(len(events)), chance.choice(events))
    return lines(events)


def shuffled(events: list[Event], chance: random.Random) -> bytes:
    rest = events[1:]
    chance.shuffle(rest)
    return lines([events[0], *rest])


def other_bytes(events: list[Event], chance: random.Random) -> bytes:
    data = bytearray(lines(events))
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def torn(events: list[Event], chance: random.Random) -> bytes:
    data = lines(events)
    return data[: chance.randrange(len(data))]


def without_a_piece(events: list[Event], chance: random.Random) -> bytes:
    data = lines(events)
    start = chance.randrange(len(data))
    return data[:start] + data[start + chance.randint(1, 300) :]


MUTATIONS: tuple[Callable[[list[Event], random.Random], bytes], ...] = (
    changed_value, changed_value, changed_value, removed, removed, twice, shuffled, other_bytes,
    torn, without_a_piece,
)  # fmt: skip


def calls(path: Path, chance: random.Random) -> Iterator[list[str]]:
    """Every command, in one of its formats."""
    known = path.with_name("known.toml")
    if not known.exists():
        known.write_text('[[quarantine]]\ntest = "*"\nexpires = "2999-12-31"\n')
    besides = {"diff": [path], "quarantine check": [known]}
    for name, command in COMMANDS.items():
        chosen = ["--format", chance.choice(list(command.formats)), "-o", os.devnull]
        yield [*name.split(), *map(str, besides.get(name, [])), str(path), *chosen]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "whole.jsonl"
    path.write_bytes(lines(JOURNAL))
    return path


def test_the_journal_is_whole_before_it_is_damaged(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(0)
    for _ in range(3):  # each format, probably
        for arguments in calls(whole, chance):
            assert main(arguments) == 0, capsys.readouterr().err
    shapes = Shapes(schema())
    assert [shapes.misfit(each) for each in JOURNAL] == [""] * len(JOURNAL)


def test_damaged_journals_are_read_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = 0
    for number in range(MUTATED):
        chance = random.Random(number)
        path = tmp_path / "damaged.jsonl"
        mutate = MUTATIONS[number % len(MUTATIONS)]
        path.write_bytes(mutate(copy.deepcopy(JOURNAL), chance))
        every = list(calls(path, chance))
        statuses = {main(every[number % len(every)])}
        # What can't be read, can't be read by any: another one will do.
        statuses |= {main(each) for each in (every if statuses != {2} else [chance.choice(every)])}
        said = capsys.readouterr().err
        assert statuses == {2} or statuses <= {0, 1}, (number, statuses, said)
        if statuses == {2}:
            refused += 1
            message = rf"fkit: {re.escape(str(path))}(:\d+: |: .*it has no complete line)"
            assert all(re.match(message, line) for line in said.splitlines()), (number, said)
        else:
            assert said == "", number
    assert MUTATED / 4 < refused < MUTATED * 3 / 4


def _odd_files() -> dict[str, bytes]:
    run, *rest = JOURNAL
    return {
        "foreign": b'{"tests": []}\n',
        "newer": lines([{**run, "schema": "2.0"}, *rest]),
        "mixed": lines([*JOURNAL, {**run, "format": "other"}]),
        "no JSON": b"\xff\xfe{}\n",
        "empty": b"",
    }


@pytest.mark.parametrize("name", _odd_files())
def test_what_is_no_journal_is_refused_by_every_command(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_bytes(_odd_files()[name])
    for arguments in calls(path, random.Random(0)):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert err.startswith(f"fkit: {path}:")
        assert out == ""


def test_the_schema_means_the_same_to_a_library_that_knows_all_of_it() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    described = schema()
    jsonschema.Draft202012Validator.check_schema(described)
    validator, shapes = jsonschema.Draft202012Validator(described), Shapes(described)
    for number in range(MUTATED // 3):
        chance = random.Random(number)
        events = copy.deepcopy([chance.choice(JOURNAL)])
        container, key = chance.choice(list(places(events[0])))
        if chance.random() < 0.2:
            del container[key]
        else:
            container[key] = chance.choice(ODD)
        if isinstance(events[0].get("event"), str):
            assert validator.is_valid(events[0]) == (shapes.misfit(events[0]) == ""), events


def test_a_schema_that_says_more_is_refused() -> None:
    with pytest.raises(ValueError, match="'pattern'"):
        Shapes({"$defs": {"event-x": {"properties": {"a": {"pattern": "b"}}}}})
