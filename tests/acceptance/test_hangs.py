"""A test that hangs ends on time, with the stacks of all threads and all that it started."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from inner_runs import Outcome, run

_HANGS = """
    import atexit, ctypes, os, signal, subprocess, sys, threading, time
    import pytest

    def hang_forever():
        while True:
            time.sleep(1000)

    def test_sleep():
        print("said before")
        hang_forever()

    def test_holds_the_gil():
        sleep = ctypes.PyDLL(None).sleep
        while True:
            sleep(1000)

    def test_stops_itself():
        while True:
            os.kill(os.getpid(), signal.SIGSTOP)

    def test_ignores_sigterm():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        hang_forever()

    def test_blocks_all_signals():
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        hang_forever()

    def test_blocks_all_signals_in_one_of_two_threads():
        def second_thread():
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            hang_forever()
        threading.Thread(target=second_thread).start()
        hang_forever()

    @pytest.fixture
    def hangs_in_setup():
        hang_forever()

    def test_in_setup(hangs_in_setup):
        pass

    @pytest.fixture
    def hangs_in_teardown():
        yield
        hang_forever()

    def test_in_teardown(hangs_in_teardown):
        pass

    def test_in_exit_handler():
        atexit.register(hang_forever)

    def test_waits_for_a_program():
        subprocess.run([sys.executable, "-c", "import time; time.sleep(1000)"])

    def test_waits_for_a_tree_that_ignores_sigterm():
        program = '''if 1:
            import os, signal, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if os.fork() == 0:
                os.setsid()
                os.fork()
            while True:
                time.sleep(1000)
        '''
        subprocess.run([sys.executable, "-c", program])

    def test_has_locked_up_its_threads():
        first, second = threading.Lock(), threading.Lock()
        both = threading.Barrier(2)
        def other_way_round():
            with second:
                both.wait()
                first.acquire()
        threading.Thread(target=other_way_round).start()
        with first:
            both.wait()
            second.acquire()

    def test_catches_everything():
        signal.signal(signal.SIGTERM, lambda *_: None)
        while True:
            try:
                hang_forever()
            except BaseException:
                pass

    def test_is_quick():
        pass
"""

_WIDE = """
    import time
    import pytest

    def hang_forever():
        while True:
            time.sleep(1000)

    @pytest.fixture(scope="module")
    def hangs():
        hang_forever()

    @pytest.fixture(scope="module")
    def is_slow():
        time.sleep(0.7)
        yield
        time.sleep(0.7)

    def test_under_hanging_fixture(hangs):
        pass

    def test_again_under_hanging_fixture(hangs):
        pass

    def test_has_time_of_its_own(is_slow):
        time.sleep(0.7)
"""

_GOES_ON = """
    import signal, time
    import pytest

    def wait_until_told_to_end():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        signal.sigwait([signal.SIGTERM])

    @pytest.fixture(scope="session")
    def hangs_at_its_end():
        yield
        while True:
            time.sleep(1000)

    @pytest.fixture(scope="module")
    def goes_on():
        wait_until_told_to_end()

    @pytest.mark.fkit(isolation="module")
    def test_goes_on_into_teardown(hangs_at_its_end):
        wait_until_told_to_end()

    def test_of_fixture_that_goes_on(goes_on):
        pass
"""

_WIDE_TEARDOWN = """
    import time
    import pytest

    @pytest.fixture(scope="session")
    def hangs_at_its_end():
        yield
        print("tearing down")
        while True:
            time.sleep(1000)

    def test_last_of_hanging_fixture(hangs_at_its_end):
        pass
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(
        tmp_path_factory.mktemp("hangs"),
        {"test_h.py": _HANGS, "test_w.py": _WIDE, "test_g.py": _GOES_ON},
        *("--fkit", "-n5", "--dist=worksteal", "--fkit-timeout=1"),
    )


@pytest.mark.parametrize(
    ("name", "when", "stack"),
    [
        ("test_sleep", "call", "in hang_forever"),
        ("test_holds_the_gil", "call", "in test_holds_the_gil"),
        ("test_stops_itself", "call", "in test_stops_itself"),
        ("test_ignores_sigterm", "call", "in hang_forever"),
        ("test_blocks_all_signals", "call", "no Python stack: the process did not answer"),
        ("test_blocks_all_signals_in_one_of_two_threads", "call", "in second_thread"),
        ("test_in_setup", "setup", "in hangs_in_setup"),
        ("test_in_teardown", "teardown", "in hangs_in_teardown"),
        ("test_in_exit_handler", "teardown", "in hang_forever"),
        ("test_waits_for_a_program", "call", "in test_waits_for_a_program"),
        (
            "test_waits_for_a_tree_that_ignores_sigterm",
            "call",
            "in test_waits_for_a_tree_that_ignores_sigterm",
        ),
        ("test_has_locked_up_its_threads", "call", "in other_way_round"),
        ("test_catches_everything", "call", "in hang_forever"),
        ("test_under_hanging_fixture", "setup", "in hangs"),
    ],
)
def test_hang_ends_on_time_with_its_stacks(
    outcome: Outcome, name: str, when: str, stack: str
) -> None:
    _assert_death(outcome.reports(name).death, when, stack)


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("test_goes_on_into_teardown", "phase call,"),
        ("test_of_fixture_that_goes_on", "phase setup of wide fixtures,"),
    ],
)
def test_hang_is_told_of_what_hung_and_not_of_what_followed(
    outcome: Outcome, name: str, phase: str
) -> None:
    assert phase in outcome.reports(name).death["text"]


def test_hang_of_a_session_fixture_at_its_end(tmp_path: Path) -> None:
    # One worker: elsewhere it may be another test that is the last.
    outcome = run(tmp_path, {"test_z.py": _WIDE_TEARDOWN}, "--fkit", "-n1", "--fkit-timeout=1")
    death = outcome.reports("test_last_of_hanging_fixture").death
    _assert_death(death, "teardown", "in hangs_at_its_end")


def _assert_death(death: dict[str, Any], when: str, stack: str) -> None:
    assert death["when"] == when
    assert death["death"].startswith("timed out after 1 s")
    assert stack in death["text"]
    # A process that does not go by itself is given 2 s between SIGTERM and SIGKILL.
    assert 0.9 < death["duration"] < 6


def test_hang_keeps_its_output(outcome: Outcome) -> None:
    death = outcome.reports("test_sleep").death
    assert death["sections"]["Captured stdout call"] == "said before\n"


def test_stack_of_every_thread_is_shown(outcome: Outcome) -> None:
    text = outcome.reports("test_has_locked_up_its_threads").death["text"]
    assert "in other_way_round" in text
    assert "in test_has_locked_up_its_threads" in text


def test_process_that_stopped_itself_is_said_to_be_stopped(outcome: Outcome) -> None:
    assert "it had been stopped" in outcome.reports("test_stops_itself").death["text"]


def test_fixture_that_hung_is_not_set_up_again(tmp_path: Path) -> None:
    # One worker: others have fixtures of their own.
    outcome = run(tmp_path, {"test_w.py": _WIDE}, "--fkit", "-n1", "--fkit-timeout=1")
    reports = outcome.reports("test_again_under_hanging_fixture")
    (failure,) = reports.failures
    assert failure["when"] == "setup"
    assert "was not set up again: timed out after 1 s" in failure["text"]
    assert failure["duration"] < 0.5


def test_wide_fixture_and_test_have_clocks_of_their_own(outcome: Outcome) -> None:
    assert outcome.reports("test_has_time_of_its_own").outcome == "passed"


def test_test_beside_hanging_ones_passes(outcome: Outcome) -> None:
    assert outcome.reports("test_is_quick").outcome == "passed"


_LIMITED = """
    import time
    import pytest

    @pytest.mark.{mark}
    def test_by_mark():
        time.sleep(1000)

    def test_by_option_or_ini():
        time.sleep(1000)
"""


@pytest.mark.parametrize(
    ("mark", "ini", "arguments", "by_mark", "by_option"),
    [
        ("fkit(timeout=0.3)", "fkit_timeout = 0.5", (), "0.3", "0.5"),
        ("timeout(0.3)", "timeout = 0.5", ("-p", "no:timeout"), "0.3", "0.5"),
        ("timeout(0.3)", "timeout = 1000", ("-p", "no:timeout", "--timeout=0.5"), "0.3", "0.5"),
        ("timeout(timeout=0.3)", "fkit_timeout=1000", ("--fkit-timeout=0.5",), "0.3", "0.5"),
    ],
)
def test_limits_come_from_marks_options_and_ini(
    tmp_path: Path,
    mark: str,
    ini: str,
    arguments: tuple[str, ...],
    by_mark: str,
    by_option: str,
) -> None:
    files = {"test_l.py": _LIMITED.format(mark=mark), "pytest.ini": f"[pytest]\n{ini}\n"}
    if importlib.util.find_spec("pytest_timeout") is not None and "no:timeout" not in arguments:
        arguments = ("-p", "no:timeout", *arguments)
    outcome = run(tmp_path, files, "--fkit", "-n0", *arguments)
    assert outcome.reports("test_by_mark").death["death"].startswith(f"timed out after {by_mark} s")
    death = outcome.reports("test_by_option_or_ini").death["death"]
    assert death.startswith(f"timed out after {by_option} s")


def test_no_limit_by_zero(tmp_path: Path) -> None:
    text = """
        import pytest, time

        @pytest.mark.fkit(timeout=0)
        def test_without_limit():
            time.sleep(0.6)
    """
    outcome = run(tmp_path, {"test_n.py": text}, "--fkit", "-n0", "--fkit-timeout=0.2")
    assert outcome.reports("test_without_limit").outcome == "passed"


def test_pytest_timeout_acts_first_where_it_can(tmp_path: Path) -> None:
    pytest.importorskip("pytest_timeout")
    text = """
        import signal, time
        import pytest

        @pytest.mark.timeout(0.5)
        def test_it_can_end():
            time.sleep(1000)

        @pytest.mark.timeout(0.5)
        def test_it_can_not_end():
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            time.sleep(1000)
    """
    outcome = run(tmp_path, {"test_t.py": text}, "--fkit", "-n0")
    (failure,) = outcome.reports("test_it_can_end").failures
    assert failure["death"] is None
    assert "Timeout" in failure["text"]
    death = outcome.reports("test_it_can_not_end").death["death"]
    assert death.startswith("timed out after 5.5 s")
