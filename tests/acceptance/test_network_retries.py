"""Tests that met errors of the network are tried again, and everybody can see that."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from contextlib import closing
from pathlib import Path

from inner import run_pytest, write_files

from broken_server import BrokenServer

_SUITE = """\
import os, socket, urllib.request
from pathlib import Path
import pytest

def get(path):
    urllib.request.urlopen(f"{os.environ['SERVER']}/{path}", timeout=5)

def first(name, times=1):
    with open(f"{name}.attempts", "a+") as log:
        log.write("x")
    return Path(f"{name}.attempts").stat().st_size <= times

@pytest.fixture(scope="module")
def wide():
    with open("wide.attempts", "a") as log:
        log.write("x")
    if Path("wide.attempts").stat().st_size == 1:
        get("reset")

def test_busy():
    if first("busy"):
        get("503")

def test_loaded():
    if first("loaded"):
        try:
            get("429")
        except OSError as error:
            raise ValueError("no model") from error

def test_cut():
    first("cut")
    get("reset")

def test_wide(wide):
    pass

def test_wide_again(wide):
    pass

def test_own():
    if first("own"):
        raise ArenaError("the cache is being written")

class ArenaError(Exception):
    pass

# None of these is one.
def test_missing():
    first("missing")
    get("404")

def test_says_so():
    first("says")
    assert not "HTTP Error 503: Service Unavailable"

def test_text():
    first("text")
    raise RuntimeError("requests.exceptions.ReadTimeout: Read timed out. (read timeout=1)")

@pytest.mark.xfail
def test_expected():
    first("expected")
    get("503")
"""


# What its import leaves can't be forked: it runs in a fresh interpreter, which has no settings.
_FRESH = """\
import threading
from test_net import first, get

threading.Thread(target=threading.Event().wait, daemon=True).start()

def test_fresh():
    if first("fresh"):
        get("502")
"""


def test_what_met_the_network_is_tried_again(tmp_path: Path) -> None:
    ini = "[pytest]\nfkit_gpu_errors = network: cache is being written\n"
    write_files(tmp_path, {"test_net.py": _SUITE, "test_other.py": _FRESH, "pytest.ini": ini})
    with closing(BrokenServer()) as server:
        ended = run_pytest(
            tmp_path, "--fkit", "-n2", "-v", "--fkit-network-retries=1", "--junitxml=junit.xml",
            "--fkit-journal=run.jsonl", "--fkit-trace=run.json", "--fkit-html=run.html",
            env={"SERVER": server.address},
        )  # fmt: skip
    passed = {"busy", "loaded", "wide", "wide_again", "own", "fresh"}
    outcomes = {nodeid.partition("::test_")[2]: told for nodeid, told in ended.outcomes.items()}
    assert outcomes == {
        **dict.fromkeys(passed, "PASSED"),
        **dict.fromkeys(("cut", "missing", "says_so", "text"), "FAILED"),
        "expected": "XFAIL",
    }
    tries = {path.stem: path.stat().st_size for path in tmp_path.glob("*.attempts")}
    once = dict.fromkeys(("missing", "says", "text", "expected"), 1)
    assert {name: tries[name] for name in tries if name != "wide"} == {
        **dict.fromkeys(("busy", "loaded", "cut", "own", "fresh"), 2), **once,
    }  # fmt: skip
    # In the terminal.
    met = "HTTPError: HTTP Error 503: Service Unavailable"
    line = rf"^retrying test_net.py::test_busy on gw\d; attempt 1 on gw\d: {met}$"
    assert re.search(line, ended.out, re.M)
    assert len(re.findall("^retrying ", ended.out, re.M)) in (6, 7)  # of what shares `wide` 1 or 2
    line = rf"^  test_net.py::test_busy  passed on attempt 2  attempt 1 on gw\d: {met}$"
    assert re.search(line, ended.out, re.M)
    assert re.search("test_net.py::test_cut  failed, 2 attempts  attempt 1 on ", ended.out)
    assert re.search("PASSED after 2 attempts .*test_net.py::test_busy", ended.out)
    # In the records.
    told = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    errors = [each for each in told if each["event"] == "network_error"]
    assert {"test_net.py::test_busy": met}.items() <= {
        each["test"]: each["message"] for each in errors
    }.items()
    assert not [each for each in told if each["event"] == "gpu_error"]
    retried = [each for each in told if each["event"] == "retried"]
    assert {each["category"] for each in retried} == {"network"}
    trace = json.loads((tmp_path / "run.json").read_text())["traceEvents"]
    assert sum(each["name"] == "network error" for each in trace) == len(errors)
    cases = ElementTree.parse(tmp_path / "junit.xml").getroot().iter("testcase")
    attempts = {
        case.get("name"): each.get("value")
        for case in cases
        for each in case.iter("property")
        if each.get("name") == "fkit_attempts"
    }
    assert attempts["test_busy"] == attempts["test_cut"] == "2"
    assert attempts["test_missing"] == "1"
    assert (tmp_path / "run.html").stat().st_size > 10_000
