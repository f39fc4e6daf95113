"""Directs the output of test processes: to files that outlive them, and to the terminal."""

from __future__ import annotations

import sys
from _io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any, Callable, Generator, TextIO

import pytest

from ...compat import pytest_hooks, pytest_output
from ...own import contextmanager, os, own_builtins, suppress
from ...protocol.descriptors import Files, OwnFile, read_from, slots, write_all
from ...protocol.event_file import LiveText
from ...protocol.plain_values import carriable
from ...system import PORTABLE
from ...system.limits import insist, room
from .excerpts import is_long, read_ends
from .relay import Relay

own_builtins(globals())


def flush() -> None:
    """Flush Python's buffers, so that no forked process writes a copy of them."""
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        try:
            stream = getattr(sys, name)
            if stream is not None:
                stream.flush()
        except BaseException:  # noqa: BLE001, S112 (gone, closed, or an object of the suite)
            continue


@contextmanager
def no_output() -> Any:
    """Within the block, descriptors 1 and 2 lead nowhere."""
    flush()
    kept = []
    with room():
        null = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            with suppress(OSError):  # closed
                kept.append((os.dup(number), number))
                os.dup2(null, number)
    os.close(null)
    try:
        yield
    finally:
        flush()
        for copy, number in kept:
            os.dup2(copy, number)
            os.close(copy)


def streams(config: pytest.Config) -> bool:
    """Whether the keeper forwards output, since without capture it would not reach the terminal.

    A worker's standard output is /dev/null, and a caller of pytest.main() may have replaced
    sys.stdout by an object in memory.
    """
    # With -p no:capture there is no such option.
    return config.getoption("capture", "no") == "no" and (_is_worker(config) or bool(_in_memory()))


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _in_memory() -> list[tuple[TextIO, int]]:
    """sys.stdout and sys.stderr as far as they have no descriptor, with their usual numbers."""
    found = []
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.fileno()
        except OSError:  # io.UnsupportedOperation
            found.append((stream, number))
        except Exception:  # noqa: BLE001, S112 (None, or any object that was assigned)
            continue
    return found


def capture_into_own_files(config: pytest.Config) -> None:
    """Redirect pytest's capture to this process's own files, which outlive it."""
    descriptors = pytest_output.capture_descriptors(config)
    if descriptors is not None:
        _redirect((slots.out, slots.err), descriptors)


class OutputCapture:
    """Plugin: has all that tests print and log written to their process's own files.

    Constructed once, in the keeper; forked processes inherit it.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._stream = streams(config)
        self._redirects = self._stream and _is_worker(config)
        self._copies = _copies(pytest_output.capture_descriptors(config))
        self._files = {
            slot: OwnFile(slot)
            for slot in (slots.out, slots.err, slots.fixture_out, slots.fixture_err, slots.log)
        }  # fmt: skip
        for stream, number in pytest_output.python_level_captures(config):
            _mirror(stream, self._files[slots.out if number == 1 else slots.err])
        if self._stream and not self._redirects:
            for stream, number in _in_memory():
                _mirror(stream, self._files[slots.out if number == 1 else slots.err])
        self._outside = pytest_output.uncaptured_stderr(config)
        self._in_gap = False
        pytest_output.on_new_log_stream(config, self._new_log_stream)
        pytest_output.replace_reading(config, _ends_of_long)

    def copy_inherited(self, files: Files) -> None:
        """In a new process: copy what pytest had captured in the host, and not read, to `files`."""
        new = {slots.log: files.log, slots.out: files.out, slots.err: files.err}
        for own in self._inherited():
            data = read_from(own)
            if data:
                write_all(new[own], data)

    def has_inherited(self) -> bool:
        """Whether a process forked now would have to copy what pytest has captured in this one."""
        return any(os.fstat(own).st_size for own in self._inherited())

    def _inherited(self) -> tuple[int, ...]:
        return (slots.log,) if self._stream else (slots.log, slots.out, slots.err)

    def enter_process(self, captures: bool = False) -> None:
        """In a new process, after its files are installed: direct all output to them.

        :param captures: whether pytest's capture may be active at this moment.
        """
        for slot, file in self._files.items():
            file.inode = os.fstat(slot).st_ino
        if any(self._copies):
            self._redirect_copies()
        capture_into_own_files(self._config)
        captures = captures and pytest_output.capture_descriptors(self._config) is not None
        if self._redirects or captures:
            _redirect((slots.out, slots.err), (1, 2))

    def _redirect_copies(self) -> None:
        captures = pytest_output.capture_descriptors(self._config)
        if captures is None:
            return
        for slot, captured, copies in zip((slots.out, slots.err), captures, self._copies):
            for copy in copies:
                if _is_same(copy, captured):  # and not closed, and another file's since
                    insist(os.dup2, slot, copy, os.get_inheritable(copy))

    def is_whole(self) -> bool:
        """Whether pytest can still capture: a test may have closed the files of the capture."""
        try:
            descriptors = pytest_output.capture_descriptors(self._config)
        except ValueError:  # by sys.stdout.close()
            return False
        if descriptors is None:
            return True
        return all(
            self._files[slot].is_at(descriptor)
            for slot, descriptor in zip((slots.out, slots.err), descriptors)
        )

    def enter_exit(self) -> None:
        """After the test: keep what exit handlers print off the terminal."""
        try:
            _redirect((slots.out, slots.err), (1, 2))
        except OSError:  # closed by the test
            return

    # --- between phases, when pytest does not capture ---
    #
    # A corrupt heap is often found there. What a process says of it would be lost among the
    # terminal's lines, so it goes to the file of what it said last, and on to where it was to go
    # when the process is still there at the next phase.

    def enter_phase(self) -> None:
        """Before a phase of a test, when pytest begins to capture."""
        if self._in_gap:
            self._end_gap()

    def leave_phase(self) -> None:
        """After a phase, when pytest captures no more and has read what it captured."""
        if self._outside() is not None:
            with suppress(OSError):  # closed by the test
                insist(os.dup2, slots.err, 2, True)
                self._in_gap = True

    def leave_test(self) -> None:
        """After all hooks around a test."""
        if self._in_gap:
            self._end_gap()
            outside = self._outside()
            if outside is not None:
                insist(os.dup2, outside, 2, True)

    def _end_gap(self) -> None:
        """Pass on what was written in a gap."""
        self._in_gap = False
        if self._files[slots.err].size():
            outside = self._outside()
            if outside is not None:
                said = read_from(slots.err)
                self._files[slots.err].truncate()
                with suppress(OSError):  # as of a terminal that is gone
                    write_all(outside, said)

    # --- capturing fixtures, logs ---

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_fixture_setup(self) -> Generator[None, object, object]:
        """Redirect the captures of capsys, capfd and the like."""
        __tracebackhide__ = True
        value = yield
        pytest_output.on_fixture_capture(value, lambda: self._fixture_captures(value))
        return value

    def _fixture_captures(self, fixture: object) -> None:
        descriptors = pytest_output.fixture_capture_descriptors(fixture)
        if descriptors is not None:
            _redirect((slots.fixture_out, slots.fixture_err), descriptors)
            _redirect((slots.fixture_out, slots.fixture_err), (1, 2))
        for stream, number in pytest_output.fixture_captures(fixture):
            _mirror(stream, self._files[slots.fixture_out if number == 1 else slots.fixture_err])

    def _new_log_stream(self, stream: TextIO) -> None:
        file = self._files[slots.log]
        file.truncate()
        _mirror(stream, file)


class Terminal:
    """Relays live logs, ``--setup-show`` and, at ``-n0``, what plugins write to the terminal.

    With workers only the controller's plugins have a terminal, as under xdist.
    """

    def __init__(self, config: pytest.Config, relay: Relay) -> None:
        self._config = config
        self._relay = relay
        self._in_worker = hasattr(config, "workerinput")
        self._silent = False
        self._waits = pytest_output.redirect_terminal(config, self._write)
        for name in ("pytest_runtest_logstart", "pytest_runtest_logfinish"):
            pytest_hooks.wrap_reporters(config, name, self._silenced)

    def _write(self, text: str) -> None:
        if self._silent:
            return
        if not self._waits and pytest_output.captures_descriptors_now(self._config):
            # Descriptor 1 is captured now, and so is what plain pytest writes to the terminal.
            with suppress(OSError):
                write_all(1, text.encode("utf-8", "replace"))
            return
        if self._in_worker and not pytest_output.pytest_itself_writes():
            return
        self._relay.send(LiveText(carriable(text)))

    def _silenced(self, function: Callable[..., object]) -> Callable[..., object]:
        """Wrap a reporter's hook to write nothing: the process with the terminal calls it, too."""

        def call(*arguments: object) -> object:
            with self._silence():
                return function(*arguments)

        return call

    @contextmanager
    def _silence(self) -> Any:
        streams = sys.stdout, sys.stderr
        # Not open(), which a suite may have replaced.
        with TextIOWrapper(BufferedWriter(FileIO(os.devnull, "w")), "utf-8", "replace") as null:
            self._silent = True
            # PyCharm's reporter has kept the stream that was there when it began.
            with no_output():
                sys.stdout = sys.stderr = null
                try:
                    yield
                finally:
                    sys.stdout, sys.stderr = streams
                    self._silent = False


def _ends_of_long(descriptor: int) -> str | None:
    """The two ends of a capture file that is very long, for pytest to report; else None."""
    if not is_long(descriptor):
        return None
    return read_ends(descriptor).decode("utf-8", "replace")


def _redirect(targets: tuple[int, int], descriptors: tuple[int, int]) -> None:
    for number, descriptor in zip(targets, descriptors):
        insist(os.dup2, number, descriptor, descriptor in (1, 2))


def _copies(captures: tuple[int, int] | None) -> list[list[int]]:
    """The descriptors that imports copied while pytest captured 1 and 2 into these."""
    if captures is None or PORTABLE:
        return []
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    others = [each for each in numbers if each not in (1, 2, *captures) and each not in slots]
    return [[each for each in others if _is_same(each, captured)] for captured in captures]


def _is_same(first: int, second: int) -> bool:
    try:
        return os.path.samestat(os.fstat(first), os.fstat(second))
    except OSError:  # closed
        return False


def _mirror(stream: Any, file: OwnFile) -> None:
    """Have writes to an object in memory repeated in a file, and truncations, too."""
    target = getattr(stream, "buffer", stream)  # tests may write bytes, past the text layer
    write: Callable[[Any], int] = target.write
    truncate: Callable[..., int] = target.truncate

    def write_both(data: Any) -> int:
        text = isinstance(data, str)
        file.write(data.encode("utf-8", "backslashreplace") if text else data)
        return write(data)

    def truncate_both(*size: int) -> int:
        file.truncate()
        return truncate(*size)

    target.write, target.truncate = write_both, truncate_both
