"""Deaths and reports of native code, by what its runtimes say on descriptor 2."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from inner import InnerRun, run_pytest, write_files

from pytest_fkit.system.diagnostics import Diagnosis, diagnosis

_SOURCE = """\
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int use_after_free(void) {
    int *p = malloc(40);
    free(p);
    return p[1];  // here: use_after_free
}
void fill(int n) {
    char *p = malloc(8);
    memset(p, 1, n);  // here: fill
    free(p);
}
int reads_low(void) {
    volatile int *p = (int *)8;
    return *p;  // here: reads_low
}
int adds(int x) {
    return x + 2147483647;  // here: adds
}
static int shared;
static void *writes(void *x) {
    shared++;  // here: writes
    return x;
}
int races(void) {
    pthread_t a, b;
    pthread_create(&a, 0, writes, 0);
    pthread_create(&b, 0, writes, 0);
    pthread_join(a, 0);
    pthread_join(b, 0);
    return shared;
}
void asserts(int x) {
    assert(x == 7);  // here: asserts
}
void frees_twice(void) {
    char *p = malloc(24);
    free(p);
    free(p);
}
int main(int count, char **names) {
    if (!strcmp(names[1], "races")) races();
    if (!strcmp(names[1], "use_after_free")) use_after_free();
    return 0;
}
"""

_THROWS = """\
#include <stdexcept>
extern "C" void throws() noexcept { throw std::runtime_error("bad size: 7 at row 3\\nand more"); }
"""


def _line(mark: str) -> int:
    lines = _SOURCE.splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if line.endswith(f"// here: {mark}")]
    return number


def _compiled(directory: Path, name: str, text: str, *options: str) -> Path:
    """A library, or a program where its name has no suffix.

    Skips where there is no compiler, or it lacks the sanitizer.
    """
    source = directory / ("frob.cc" if "throw " in text else "frob.c")
    source.write_text(text)
    compiler = shutil.which("g++" if source.suffix == ".cc" else "gcc")
    if compiler is None:
        pytest.skip("there is no gcc")
    kind = ("-shared", "-fPIC") if name.endswith(".so") else ()
    command = [compiler, "-g", "-O0", "-w", *kind, *options, str(source), "-o", name, "-lpthread"]
    made = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"gcc can't make it: {made.stderr[-200:]}")
    return directory / name


_TESTS = """
import ctypes, os, sys
import pytest

def native(function, *arguments, name="plain"):
    return getattr(ctypes.CDLL(os.path.abspath(f"{name}.so")), function)(*arguments)

QUOTED = "==%d==ERROR: AddressSanitizer: heap-use-after-free on address 0x1 at pc 0x2"
"""

_PLAIN = (
    _TESTS
    + """
def test_asserts(): native("asserts", 1)
def test_frees_twice(): native("frees_twice")
def test_throws(): native("throws", name="throws")
def test_adds(): native("adds", 5, name="undefined")
@pytest.mark.xfail(strict=True)
def test_adds_too(): native("adds", 6, name="undefined"); assert False

# None of these may be misread.
def test_quotes_a_log(capfd):
    with capfd.disabled():
        pass
    print("terminate called after throwing an instance of 'int'", file=sys.stderr)
    print(QUOTED % 1, "WARNING: ThreadSanitizer: data race (pid=1)", file=sys.stderr, sep="\\n")

def test_quotes_undefined_behaviour():
    print("a.c:1:2: runtime error: shift exponent 32 is too large", file=sys.stderr)

def test_quotes_and_aborts():
    print("terminate called after throwing an instance of 'int'", file=sys.stderr)
    print("malloc(): corrupted top size", file=sys.stderr)
    print("and goes on", file=sys.stderr, flush=True)
    os.kill(os.getpid(), 6)

def test_quotes_in_a_traceback():
    try:
        raise ValueError("free(): invalid pointer")
    except ValueError:
        import traceback
        traceback.print_exc()
    os._exit(1)

def test_a_child_says_it():
    import subprocess
    subprocess.run(["sh", "-c", 'printf "$0\\\\n==%d==ABORTING\\\\n" $$ $$ >&2', QUOTED])
    os._exit(1)
"""
)

_ADDRESS = (
    _TESTS
    + """
def test_use_after_free(): native("use_after_free", name="address")
def test_fill(): native("fill", 9, name="address")
def test_reads_low(): native("reads_low", name="address")
"""
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> InnerRun:
    directory = tmp_path_factory.mktemp("plain")
    _compiled(directory, "throws.so", _THROWS)
    _compiled(directory, "plain.so", _SOURCE)
    _compiled(directory, "undefined.so", _SOURCE, "-fsanitize=undefined")
    ini = "[pytest]\nfkit_sanitizer_reports = fail\n"
    write_files(directory, {"test_plain.py": _PLAIN, "pytest.ini": ini})
    return run_pytest(directory, "--fkit", "-n1", "-rA", env={"COLUMNS": "200"})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_asserts", rf"SIGABRT: Assertion `x == 7' failed in frob.c:{_line('asserts')} at "),
        ("test_frees_twice", "SIGABRT: free(): double free detected in tcache 2 at "),
        (
            "test_throws",
            (
                "SIGABRT: terminate called after throwing an instance of 'std::runtime_error', "
                "what():  bad size: 7 at row 3 at "
            ),
        ),
        ("test_quotes_and_aborts", "SIGABRT at "),
        ("test_quotes_in_a_traceback", "exit status 1"),
        ("test_a_child_says_it", "exit status 1"),
    ],
)
def test_the_line_that_says_why_is_in_the_headline(
    plain: InnerRun, name: str, message: str
) -> None:
    said = plain.message(f"test_plain.py::{name}")
    assert said.startswith(message)
    assert said == message or message.endswith(" at ")
    (row,) = [line for line in plain.lines if line.startswith(f"  test_plain.py::{name}  ")]
    assert message.replace(" at ", "  ").split("  ")[0] in row


def test_a_test_that_went_on_fails_if_that_is_asked_for(plain: InnerRun) -> None:
    reason = (
        "signed integer overflow: 5 + 2147483647 cannot be represented in type 'int' "
        f"in frob.c:{_line('adds')}"
    )
    assert plain.outcomes["test_plain.py::test_adds"] == "FAILED"
    assert plain.message("test_plain.py::test_adds").startswith(f"{reason}, said a sanitizer")
    assert plain.outcomes["test_plain.py::test_adds_too"] == "XFAIL"
    begin = plain.lines.index("2 tests survived a sanitizer's report:")
    assert plain.lines[begin + 1] == f"  test_plain.py::test_adds  {reason}"


@pytest.mark.parametrize("name", ["quotes_a_log", "quotes_undefined_behaviour"])
def test_a_quotation_is_no_report(plain: InnerRun, name: str) -> None:
    assert plain.outcomes[f"test_plain.py::test_{name}"] == "PASSED"


def _library(name: str) -> str:
    """A sanitizer's runtime, which has to be loaded first."""
    found = subprocess.run(
        ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=False
    )
    path = found.stdout.strip()
    if not os.path.isabs(path):
        pytest.skip(f"gcc has no {name}")
    return path


def test_address_sanitizer(tmp_path: Path) -> None:
    _compiled(tmp_path, "address.so", _SOURCE, "-fsanitize=address", "-fno-omit-frame-pointer")
    write_files(tmp_path, {"test_address.py": _ADDRESS})
    ended = run_pytest(
        tmp_path, "--fkit", "-n0", "-rA",
        env={
            "COLUMNS": "200", "LD_PRELOAD": _library("libasan.so"),
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
        },
    )  # fmt: skip

    def message(name: str) -> str:
        return ended.message(f"test_address.py::{name}")

    where = " at test_address.py:"
    assert message("test_use_after_free").startswith(
        f"heap-use-after-free in frob.c:{_line('use_after_free')}{where}"
    )
    assert message("test_fill").startswith(f"heap-buffer-overflow in frob.c:{_line('fill')}{where}")
    # Of the user's code, not of the handler that raised the signal again.
    assert message("test_reads_low").startswith(f"SEGV in frob.c:{_line('reads_low')}{where}")
    assert ended.out.count("it said: ==") == 3


def _diagnosed(*command: str) -> Diagnosis | None:
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    _, written = process.communicate(timeout=60)
    status = process.returncode
    ending = signal.Signals(-status).name if status < 0 else f"exit {status}"
    return diagnosis(written.decode(), process.pid, ending)


def test_thread_sanitizer(tmp_path: Path) -> None:
    program = _compiled(tmp_path, "races", _SOURCE, "-fsanitize=thread")
    found = _diagnosed(str(program), "races")
    assert found is not None
    assert found.reason == f"data race in frob.c:{_line('writes')}"


def test_valgrind(tmp_path: Path) -> None:
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("there is no valgrind")
    program = _compiled(tmp_path, "use_after_free", _SOURCE)
    found = _diagnosed(valgrind, "--error-exitcode=99", str(program), "use_after_free")
    assert found is not None
    assert found.reason == f"Invalid read of size 4 in frob.c:{_line('use_after_free')}"
