"""Where the output of a test process goes: files that outlive it, and a terminal elsewhere."""

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
from ...system.limits import insist
from .excerpts import is_long, read_ends
from .relay import Relay

own_builtins(globals())


def flush() -> None:
    """Write what Python buffers, lest a forked process writes its copy of that, too."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except Exception:  # noqa: BLE001, S112 (closed, broken, or an object of the suite's own)
            continue


def streams(config: pytest.Config) -> bool:
    """Whether the keeper passes output on: to where it can't get by itself, without capture.

    A worker writes into /dev/null; whoever calls pytest may have put an object in memory into
    sys.stdout.
    """
    # No such option: -p no:capture.
    return config.getoption("capture", "no") == "no" and (_is_worker(config) or bool(_in_memory()))


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _in_memory() -> list[tuple[TextIO, int]]:
    """Those of sys.stdout and sys.stderr that have no descriptor, with the one in its place."""
    found = []
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.fileno()
        except OSError:  # io.UnsupportedOperation
            found.append((stream, number))
        except Exception:  # noqa: BLE001, S112 (None, or whatever somebody has put there)
            continue
    return found


def capture_into_own_files(config: pytest.Config) -> None:
    """Have pytest capture into this process's own files, which outlive it."""
    descriptors = pytest_output.capture_descriptors(config)
    if descriptors is not None:
        _point((slots.out, slots.err), descriptors)


class Output:
    """Plugin: has all that tests print and log end up in their process's own files.

    Made once, in the keeper.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._stream = streams(config)
        self._redirects = self._stream and _is_worker(config)
        self._files = {
            slot: OwnFile(slot)
            for slot in (slots.out, slots.err, slots.fixture_out, slots.fixture_err, slots.log)
        }  # fmt: skip
        for stream, number in pytest_output.python_level_captures(config):
            _mirror(stream, self._files[slots.out if number == 1 else slots.err])
        if self._stream and not self._redirects:
            for stream, number in _in_memory():
                _mirror(stream, self._files[slots.out if number == 1 else slots.err])
        pytest_output.on_new_log_stream(config, self._new_log_stream)
        pytest_output.replace_reading(config, _ends_of_long)

    def hand_on(self, files: Files) -> None:
        """In a new process: have in its files what the one above it wrote and did not collect."""
        kept = [(slots.log, files.log)]
        if not self._stream:
            kept += [(slots.out, files.out), (slots.err, files.err)]
        for ours, theirs in kept:
            data = read_from(ours)
            if data:
                write_all(theirs, data)

    def enter_process(self, captures: bool = False) -> None:
        """In a new process, whose files are installed.

        :param captures: whether pytest captures at this moment.
        """
        for file in self._files.values():
            file.enter_process()
        capture_into_own_files(self._config)
        captures = captures and pytest_output.capture_descriptors(self._config) is not None
        if self._redirects or captures:
            _point((slots.out, slots.err), (1, 2))

    def is_whole(self) -> bool:
        """Whether pytest can still capture: a test may have closed its files."""
        descriptors = pytest_output.capture_descriptors(self._config)
        if descriptors is None:
            return True
        return all(
            self._files[slot].is_at(descriptor)
            for slot, descriptor in zip((slots.out, slots.err), descriptors)
        )

    def enter_exit(self) -> None:
        """After the test: what exit handlers print is kept off the terminal."""
        with suppress(OSError):  # closed by the test
            _point((slots.out, slots.err), (1, 2))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_fixture_setup(self) -> Generator[None, object, object]:
        """Look at the value of capsys, capfd and the like once it is there."""
        __tracebackhide__ = True
        value = yield
        pytest_output.on_fixture_capture(value, lambda: self._fixture_captures(value))
        return value

    def _fixture_captures(self, fixture: object) -> None:
        descriptors = pytest_output.fixture_capture_descriptors(fixture)
        if descriptors is not None:
            _point((slots.fixture_out, slots.fixture_err), descriptors)
            _point((slots.fixture_out, slots.fixture_err), (1, 2))
        for stream, number in pytest_output.fixture_captures(fixture):
            _mirror(stream, self._files[slots.fixture_out if number == 1 else slots.fixture_err])

    def _new_log_stream(self, stream: TextIO) -> None:
        file = self._files[slots.log]
        file.truncate()
        _mirror(stream, file)


class Terminal:
    """Relays live logs, ``--setup-show`` and, without workers, what plugins write.

    With workers plugins have a terminal in the controller, and none beside a test, as under xdist.
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
            # What has a terminal writes to it by this descriptor.
            with suppress(OSError):
                write_all(1, text.encode("utf-8", "replace"))
            return
        if self._in_worker and not pytest_output.pytest_itself_writes():
            return
        self._relay.send(LiveText(carriable(text)))

    def _silenced(self, function: Callable[..., object]) -> Callable[..., object]:
        """The same for a plugin that is told so a second time, where there is a terminal."""

        def call(*arguments: Any) -> object:
            with self._silence():
                return function(*arguments)

        return call

    @contextmanager
    def _silence(self) -> Any:
        streams = sys.stdout, sys.stderr
        # Not by open(), which a suite may have replaced.
        with TextIOWrapper(BufferedWriter(FileIO(os.devnull, "w")), "utf-8", "replace") as null:
            self._silent = True
            sys.stdout = sys.stderr = null
            try:
                yield
            finally:
                sys.stdout, sys.stderr = streams
                self._silent = False


def _ends_of_long(descriptor: int) -> str | None:
    """What pytest reports of very much output."""
    if not is_long(descriptor):
        return None
    return read_ends(descriptor).decode("utf-8", "replace")


def _point(ours: tuple[int, int], descriptors: tuple[int, int]) -> None:
    for number, descriptor in zip(ours, descriptors):
        insist(os.dup2, number, descriptor, descriptor in (1, 2))


def _mirror(stream: Any, file: OwnFile) -> None:
    """Have what goes into an object in memory also written to a file, and forgotten with it."""
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
