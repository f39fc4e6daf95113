"""Each message between our processes lost, doubled, swapped with the next, or cut off.

Either nothing changes, or each test that it touches is an ERROR that says what is missing.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import pytest
from inner import run_pytest

from pytest_fkit.protocol import messages

LIMIT = 4.0
"""Seconds that a test may take."""

FAULTS = ("lost", "doubled", "swapped", "killed")

# Where our processes make their messages, one of them goes wrong, once in a run.
_PLUGIN = '''
import json, os, signal
import pytest
from pytest_fkit.protocol import wire
from pytest_fkit.protocol import descriptors, channels
from pytest_fkit.sandbox.process import relay

kind, fault, directory = os.environ["FAULT"].split(":")
pack = wire.Packer.pack
cut = False

def is_first():
    """Whether no other process was here before."""
    try:
        os.close(os.open(f"{directory}/injected", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True

def packed(self, *messages):
    global cut
    names = [type(message).__name__ for message in messages]
    if fault == "none":
        with open(f"{directory}/kinds", "a") as file:
            file.write(" ".join(names) + "\\n")
    frame = pack(self, *messages)
    held, self.held = getattr(self, "held", b""), b""
    if held:
        return frame + held
    if kind not in names or not is_first():
        return frame
    if fault == "lost":
        return b""
    if fault == "doubled":
        return frame + frame
    if fault == "swapped":
        self.held = frame
        return b""
    cut = True
    return frame[: len(frame) // 2]

def dying(function):
    def call(*args, **kwargs):
        result = function(*args, **kwargs)
        if cut:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

wire.Packer.pack = packed
channels.Link.send = dying(channels.Link.send)
channels.Link.send_files = dying(channels.Link.send_files)
channels.Link.flush = dying(channels.Link.flush)
channels.Pipes.send = dying(channels.Pipes.send)
relay.write_all = dying(relay.write_all)

class Log:
    def pytest_runtest_logreport(self, report):
        outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
        text = getattr(getattr(report, "fkit", None), "death", "")
        with open(f"{directory}/reports", "a") as file:
            file.write(json.dumps([report.nodeid, report.when, outcome, text]) + "\\n")

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Log())
'''

_SUITE = {
    "pytest.ini": "[pytest]\njunit_family = xunit1\n",
    "test_wide.py": """
        import warnings
        import pytest

        @pytest.fixture(scope="module")
        def wide():
            print("set up")
            yield
            print("torn down")

        @pytest.fixture(params=[1, 2], scope="module")
        def each(request):
            return request.param

        @pytest.fixture
        def asks(request): return request.getfixturevalue("wide")

        def test_asks(asks): pass
        def test_wide(wide): pass
        def test_each(wide, each): pass
        def test_fails(wide): assert 0
        """,
    "test_more.py": """
        import os, signal, warnings
        import pytest

        def test_reports(
            record_property, record_testsuite_property, fkit_metrics, fkit_artifacts, request
        ):
            record_testsuite_property("a", 1)
            fkit_metrics["speed"] = 1.5
            warnings.warn("look")
            request.node.add_marker(pytest.mark.xfail(reason="not yet"))
            assert 0

        def test_crash(): os.kill(os.getpid(), signal.SIGSEGV)
        def test_after(): pass

        @pytest.mark.fkit_skip
        def test_shared(): pass

        @pytest.mark.fkit_skip
        def test_shared_too(): pass

        @pytest.fixture(scope="session")
        def dies():
            os.abort()

        def test_broken(dies): pass
        def test_broken_again(dies): pass
        """,
    "test_thread.py": """
        import threading
        import pytest

        @pytest.fixture(scope="module")
        def thread():
            ends = threading.Event()
            thread = threading.Thread(target=ends.wait)
            thread.start()
            yield
            ends.set()
            thread.join()

        def test_beside_a_thread(thread): pass
        def test_beside_it_too(thread): pass
        def test_last(): pass
        """,
}

_MODES = {
    "n0": ("-n0",),
    "n1": ("-n1",),
    "shared": ("-n1", "--fkit-isolation=module"),
}


@dataclass(frozen=True)
class Ran:
    """A run of the suite.

    :param reports: phases with their outcomes, and what is said of a death, by node id.
    """

    status: int
    reports: dict[str, list[tuple[str, str, str]]]
    seconds: float
    out: str

    @property
    def outcomes(self) -> dict[str, list[tuple[str, str]]]:
        """Without what is said."""
        return {
            nodeid: sorted((when, outcome) for when, outcome, _ in told)
            for nodeid, told in self.reports.items()
        }


def _run(directory: Path, mode: str, kind: str = "", fault: str = "none") -> Ran:
    (directory / "suite").mkdir()
    for name, text in {"faults.py": _PLUGIN, **_SUITE}.items():
        lines = text.strip("\n").split("\n")
        indent = len(lines[0]) - len(lines[0].lstrip())
        (directory / "suite" / name).write_text("\n".join(line[indent:] for line in lines))
    suite = directory / "suite"
    began = time.monotonic()
    ended = run_pytest(
        suite, "-p", "faults", "-p", "no:cacheprovider", "--fkit", f"--fkit-timeout={LIMIT:g}",
        "--junitxml=junit.xml", *_MODES[mode],
        env={"FAULT": f"{kind}:{fault}:{directory}", "PYTHONPATH": str(suite)},
        timeout=90,
    )  # fmt: skip
    reports: dict[str, list[tuple[str, str, str]]] = {}
    for line in (directory / "reports").read_text().splitlines():
        nodeid, *told = json.loads(line)
        reports.setdefault(nodeid, []).append(tuple(told))
    seconds = time.monotonic() - began
    return Ran(ended.status, reports, seconds, ended.out + ended.err)


@pytest.fixture(scope="session")
def without_fault(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Ran, set[str]]]:
    """By mode, the run without a fault, and the kinds of messages in it."""
    found = {}
    for mode in _MODES:
        directory = tmp_path_factory.mktemp(mode)
        ran = _run(directory, mode)
        found[mode] = ran, set((directory / "kinds").read_text().split())
    return found


# Only where GPUs, coverage.py, plugins, a fresh interpreter or a user who interrupts or asks
# are there;
# Ping and Pong where something was lost already; Restarted where a child is slow to leave.
_RARE = {
    "Warm", "Measured", "PluginState", "NotCollected", "Ready", "Interrupted", "Stop", "Output",
    "HeldReport", "LiveText", "SessionFlag", "Used", "UsedBefore", "Follows", "Ping", "Pong",
    "Restarted", "EndError", "SessionFinished", "WorkerOutput", "WideOutput", "Notice",
    "Inspect", "Inspected", "SessionOver",
}  # fmt: skip

_BY_WORKER = {"Run", "RunTogether", "Finish", "Follows", "OrderAnew", "Broken"}

_KINDS = sorted(set(messages.BY_NAME) - _RARE)


def test_all_kinds_of_messages_are_in_the_suite(
    without_fault: dict[str, tuple[Ran, set[str]]],
) -> None:
    seen = set.union(*(kinds for _, kinds in without_fault.values()))
    assert set(_KINDS) - seen == set()


def _chosen() -> Iterator[tuple[str, str]]:
    """One fault of each kind, all with ``FKIT_EVERY_FAULT`` set: four times the minute it takes."""
    every = "FKIT_EVERY_FAULT" in os.environ
    for number, kind in enumerate(_KINDS):
        chosen = FAULTS if every else (FAULTS[number % len(FAULTS)],)
        yield from ((kind, fault) for fault in chosen)


@pytest.mark.parametrize(("kind", "fault"), list(_chosen()))
def test_no_fault_changes_a_verdict_unseen(
    kind: str, fault: str, without_fault: dict[str, tuple[Ran, set[str]]], tmp_path: Path
) -> None:
    modes = [mode for mode, (_, kinds) in without_fault.items() if kind in kinds]
    if fault == "killed" and kind in _BY_WORKER:
        # There it is pytest itself, after which nobody is left to report.
        modes = [mode for mode in modes if mode != "n0"]
    # Each of them for one fault at least: all in all would take too long.
    mode = modes[(FAULTS.index(fault) + _KINDS.index(kind)) % len(modes)]
    check(without_fault[mode][0], _run(tmp_path, mode, kind, fault))


def check(right: Ran, ran: Ran) -> None:
    """Whether the run is the one without a fault, or says of each test that it differs."""
    assert ran.seconds < right.seconds + LIMIT + 10, ran.out
    assert "INTERNALERROR" not in ran.out, ran.out
    assert set(ran.reports) == set(right.reports), ran.out
    touched = {nodeid for nodeid in right.reports if ran.outcomes[nodeid] != right.outcomes[nodeid]}
    assert bool(touched) or ran.status == right.status, ran.out
    assert ran.status != 0, ran.out
    for nodeid in touched:
        told = [text for _, outcome, text in ran.reports[nodeid] if outcome == "failed"]
        assert any(
            word in text
            for text in told
            for word in (
                "missing",
                "did not",
                "damaged",
                "no report",
                "SIGKILL",
                "died",
                "lost",
                "before it",
            )
        ), (nodeid, told, ran.out)
