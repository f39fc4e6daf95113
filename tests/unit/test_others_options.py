"""Each option, mark and variable of the pytest-fkit on PyPI, 0.2.0 to 0.11.0, is known here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_fkit.config.declaration import check_without_fkit
from pytest_fkit.config.marks import _CHECKS
from pytest_fkit.config.options import BY_NAME
from pytest_fkit.config.others_options import ACCEPTED, INSTEAD, REFUSED, notice
from pytest_fkit.config.settings import THREADS, gpu_settings_of, settings_of

PAGE = Path(__file__).parents[2] / "docs/start/migrating.md"

OPTIONS = {
    "--fkit": "", "--fkit-timeout": "5", "--fkit-workers": "2", "--fkit-gpus-per-worker": "2",
    "--fkit-threads-per-worker": "auto", "--fkit-max-retries": "3",
    "--fkit-serial-patterns": "nccl,ddp",
}  # fmt: skip
"""Those that mean the same here, with a value."""

MARKS = ("fkit_skip", "fkit_multi_gpu", "fkit_single_gpu", "fkit_serial")

VARIABLES = (
    "FKIT_WORKER_ID", "FKIT_GPU_IDS", "FKIT_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "TORCH_NUM_THREADS",
    "MASTER_PORT", "MASTER_ADDR", "NCCL_MIN_NCHANNELS", "NCCL_ASYNC_ERROR_HANDLING",
    "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip


def test_the_page_on_migrating_names_all_of_it() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("## From the pytest-fkit on PyPI") :]
    first = " ".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE))
    named = set(re.findall(r"--[a-z][a-z-]+|\bfkit_[a-z_]+|\b[A-Z]+_[A-Z_]+", first))
    here = {*OPTIONS, *ACCEPTED, *REFUSED, *MARKS, *VARIABLES}
    assert named == here
    assert set(MARKS) <= set(_CHECKS)
    for name in ("FKIT_THREADS", *VARIABLES[3:8]):
        assert name in THREADS


def test_what_means_the_same_is_taken(pytester: pytest.Pytester) -> None:
    arguments = [f"{flag}={value}" if value else flag for flag, value in OPTIONS.items()]
    config = pytester.parseconfig(*arguments)
    found, gpus = settings_of(config), gpu_settings_of(config, config.option)
    assert (found.timeout, found.workers, found.max_retries) == (5, 2, 3)
    assert found.serial_patterns == ("nccl", "ddp")
    assert (gpus.gpus_per_worker, gpus.threads_per_worker) == (2, "auto")
    assert {flag[2:].replace("-", "_") for flag in OPTIONS} <= set(BY_NAME)


def test_what_has_no_effect_is_said_in_one_line(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfig("--fkit", "--fkit-mode=isolate", "--fkit-batch")
    line = f"--fkit-mode=isolate and --fkit-batch have no effect: {INSTEAD}"
    assert notice(config.option) == line
    assert notice(pytester.parseconfig("--fkit").option) == ""
    with pytest.raises(pytest.UsageError, match=r"--fkit-mode=fast: .* --fkit-isolation=module"):
        notice(pytester.parseconfig("--fkit-mode=fast").option)
    with pytest.raises(pytest.UsageError, match="--fkit-mode does nothing without --fkit"):
        check_without_fkit(pytester.parseconfig("-p", "no:timeout", "--fkit-mode=batch"))


def test_how_it_ends(pytester: pytest.Pytester) -> None:
    """Help shows none of them, one line tells of them, unknown ones are refused."""
    pytester.makepyfile("def test_it(): pass")
    shown = pytester.runpytest("--help").stdout.str()
    assert not any(flag in shown for flag in ACCEPTED)
    run = ("--fkit", "-n0", "--fkit-batch", "-p", "no:cacheprovider")
    lines = pytester.runpytest_subprocess(*run).outlines
    [line] = [line for line in lines if "--fkit-batch" in line]
    assert line == f"fkit: --fkit-batch has no effect: {INSTEAD}"
    ended = pytester.runpytest_subprocess(*run, "--trace-output=x.csv")
    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    [line] = [each for each in ended.errlines if each.startswith("ERROR: pytest-fkit: --trace-out")]
    assert "--fkit-trace=PATH" in line
    pytester.makeconftest("def pytest_addoption(parser): parser.addoption('--trace-output')")
    assert pytester.runpytest_subprocess(*run, "--trace-output=x.csv").ret == 0
