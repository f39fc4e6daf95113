"""Private names of pytest's capture, log and terminal."""

from __future__ import annotations

import functools
import io
import sys
from types import FrameType
from typing import Any, Callable, TextIO, cast

import pytest
from _pytest.config import create_terminal_writer
from _pytest.terminal import TerminalReporter

from ..own import own_builtins
from .pytest_hooks import remove_implementation

own_builtins(globals())


# --- what pytest captures into ---


def _of_session(config: pytest.Config) -> Any:
    return getattr(config.pluginmanager.get_plugin("capturemanager"), "_global_capturing", None)


def _of_fixture(fixture: object) -> Any:
    return getattr(fixture, "_capture", None)


def _descriptor_files(capturing: Any) -> list[Any]:
    """The files for descriptors 1 and 2; none if it captures in another way, or not at all."""
    if _descriptors(capturing) is None:
        return []
    return [capturing.out.tmpfile, capturing.err.tmpfile]


def _descriptors(capturing: Any) -> tuple[int, int] | None:
    if capturing is None or not hasattr(capturing.out, "targetfd"):
        return None
    return capturing.out.tmpfile.fileno(), capturing.err.tmpfile.fileno()


def capture_descriptors(config: pytest.Config) -> tuple[int, int] | None:
    """The descriptors of the files into which pytest captures descriptors 1 and 2.

    None if it captures in another way or not at all.
    """
    return _descriptors(_of_session(config))


def fixture_capture_descriptors(fixture: object) -> tuple[int, int] | None:
    """As :func:`capture_descriptors`, for the value of the fixtures capfd and capfdbinary."""
    return _descriptors(_of_fixture(fixture))


def captures_descriptors_now(config: pytest.Config) -> bool:
    """Whether what is written to descriptor 1 now is captured, for the test that runs."""
    capturing = _of_session(config)
    return bool(_descriptor_files(capturing)) and capturing.is_started()


def uncaptured_stderr(config: pytest.Config) -> Callable[[], int | None]:
    """A function that returns the descriptor of what 2 is while pytest does not capture it.

    It returns None if pytest captures it now, or never.
    """
    capturing = _of_session(config)
    if _descriptors(capturing) is None:
        return lambda: None

    def outside() -> int | None:
        return None if capturing.is_started() else capturing.err.targetfd_save

    return outside


def replace_reading(config: pytest.Config, read: Callable[[int], str | None]) -> None:
    """Have pytest get what it captured into a file from `read`, given the file's descriptor.

    Where that answers None it reads the file itself. Capturing fixtures are left alone.
    """
    for file in _descriptor_files(_of_session(config)):
        _replace_read(file, read)


def _replace_read(file: Any, read: Callable[[int], str | None]) -> None:
    read_all = file.read

    def read_or_ask(*size: int) -> str:
        text = read(file.fileno()) if not size else None
        return read_all(*size) if text is None else text

    file.read = read_or_ask


def _in_memory(capturing: Any) -> list[tuple[Any, int]]:
    if capturing is None or capturing.out is None or hasattr(capturing.out, "targetfd"):
        return []
    return [(capturing.out.tmpfile, 1), (capturing.err.tmpfile, 2)]


def python_level_captures(config: pytest.Config) -> list[tuple[Any, int]]:
    """Objects that collect what is written to sys.stdout (1) and sys.stderr (2) in memory only."""
    return _in_memory(_of_session(config))


def fixture_captures(fixture: object) -> list[tuple[Any, int]]:
    """The same for the value of the fixtures capsys, capsysbinary and capteesys."""
    return _in_memory(_of_fixture(fixture))


def on_fixture_capture(fixture: object, action: Callable[[], None]) -> None:
    """Call `action` now, and whenever the value of capsys, capfd or the like begins to capture.

    pytest ends and begins that for each phase of the test. The value of any other fixture is left
    alone.
    """
    if type(fixture) is not pytest.CaptureFixture or "_start" in vars(fixture):
        return
    start = fixture._start

    def start_and_tell() -> None:
        begins = fixture._capture is None
        start()
        if begins:
            action()

    fixture._start = start_and_tell  # type: ignore[method-assign]
    action()


# --- log and terminal ---


def on_new_log_stream(config: pytest.Config, action: Callable[[TextIO], None]) -> None:
    """Call `action` with every stream in which pytest collects the log of a phase."""
    handler: Any = getattr(config.pluginmanager.getplugin("logging-plugin"), "report_handler", None)
    if handler is None:  # -p no:logging
        return
    reset = handler.reset

    def reset_and_tell() -> None:
        reset()
        action(handler.stream)

    handler.reset = reset_and_tell


class _Text(io.StringIO):
    """A text file that passes its text to a function and keeps nothing."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write

    def write(self, text: str) -> int:
        self._write(text)
        return len(text)


class _SilentTerminal:
    """Stands where plugins look for the terminal reporter, and implements no hook."""

    def __init__(self, reporter: Any) -> None:
        self._reporter = reporter

    # pluggy looks for hooks among the methods of the class only.
    def __getattr__(self, name: str) -> Any:
        return getattr(self._reporter, name)


def forget_reports_of_worker(config: pytest.Config) -> None:
    """Have the terminal reporter of a worker, which writes to /dev/null, collect no reports."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    remove_implementation(config.hook.pytest_runtest_logreport, reporter)


def redirect_terminal(config: pytest.Config, write: Callable[[str], None]) -> bool:
    """Call `write` with what live logs, ``--setup-show`` and the like write; report nothing.

    Live logs hold a reference to the reporter, so it stays, with another writer.

    :return: whether the terminal was a file or a pipe, where text waits in a buffer and is not
        captured with what a test writes.
    """
    plugins = config.pluginmanager
    reporter: Any = plugins.getplugin("terminalreporter")
    if reporter is None:  # -p no:terminal
        return False
    file: Any = None
    if not isinstance(reporter, _SilentTerminal):
        file = reporter._tw._file
        plugins.unregister(reporter)
        plugins.register(_SilentTerminal(reporter), "terminalreporter")
    else:
        reporter = reporter._reporter
    reporter._tw = create_terminal_writer(config, _Text(write))
    through = ("line_buffering", "write_through")
    return isinstance(file, io.TextIOWrapper) and not any(getattr(file, each) for each in through)


def pytest_itself_writes() -> bool:
    """Whether the caller writes text of pytest's, or of a log."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if not name.startswith(("pytest_fkit.", "_pytest.terminal", "_pytest._io")):
            return name.startswith(("_pytest.", "logging"))
        frame = frame.f_back
    return False


def terminal_writer(config: pytest.Config) -> Callable[[str], None]:
    """A function that writes text to the terminal as it is."""
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None:  # -p no:terminal
        return lambda _: None
    return functools.partial(reporter.write, flush=True)


def terminal_file(config: pytest.Config) -> TextIO | None:
    """What pytest's own reporter writes to, if that is a terminal that takes colours.

    None as well where another plugin reports, or nobody does.
    """
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    if type(reporter) is not TerminalReporter:
        return None
    writer: Any = reporter._tw
    return cast("TextIO", writer._file) if writer.hasmarkup and writer._file.isatty() else None


def begin_terminal_line(reporter: Any) -> None:
    """Begin a new line unless the terminal is at the beginning of one."""
    reporter.ensure_newline()
    if reporter._tw.width_of_current_line:  # letters of tests
        reporter._tw.line()
