"""Machines on the way to the first test: what does not fit is named, and Ctrl-C ends it at once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from inner_runs import started, wait_until

SUITE = {
    "conftest.py": """\
        import os, pathlib, time

        if os.environ.get("FKIT_MACHINE") and "FKIT_INNER_HANGS" in os.environ:
            with open(pathlib.Path(os.environ["FKIT_INNER_DIR"]) / "began.txt", "a") as file:
                file.write("began\\n")
            time.sleep(1000)
    """,
    "test_a.py": "def test_a(): pass\n",
}

CLIENT = """\
#!/bin/sh
# Reaches a machine so many times; after that it hangs.
times=$1 machine=$2
shift 2
[ "$times" = "$(ls -d "$FKIT_INNER_DIR/$machine"-* 2>/dev/null | wc -l)" ] && {
    echo began >> "$FKIT_INNER_DIR/began.txt"
    exec sleep 1000
}
mkdir "$FKIT_INNER_DIR/$machine-$$"
exec "$@"
"""


def exec_client(directory: Path, times: int) -> str:
    """A value of ``--fkit-machines``: n1 and n2 are reached so many times."""
    path = directory / "client"
    path.write_text(CLIENT)
    path.chmod(0o755)
    return f"--fkit-machines=exec:n1,n2 {path} {times} {{machine}} {{python}}"


@pytest.mark.parametrize(
    ("times", "variables"),
    [(0, {}), (1, {}), (100, {"FKIT_INNER_HANGS": "1"})],
    ids=["asked", "opened", "importing"],
)
def test_ctrl_c_ends_machines_that_start(
    times: int, variables: dict[str, str], tmp_path: Path
) -> None:
    with started(
        tmp_path, SUITE, "--fkit", exec_client(tmp_path, times), "-n1", "--fkit-grace=300",
        env=variables,
    ) as run:  # fmt: skip
        assert wait_until(lambda: run.await_file("began.txt").count("began") == 2, 30)
        os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does
        outcome = run.wait(30)
        assert run.await_gone(20) == []
    assert outcome.status == pytest.ExitCode.INTERRUPTED, outcome.stdout + outcome.stderr
    assert "!! KeyboardInterrupt !!" in outcome.stdout
    assert "Traceback" not in outcome.stdout + outcome.stderr
    # Neither a limit nor the grace is waited for; plain xdist takes a second to end workers.
    assert [*(tmp_path / "tmp").glob("pytest-fkit-*")] == []
