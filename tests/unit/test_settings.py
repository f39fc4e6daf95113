"""Options and ini values: parsed and checked once."""

from __future__ import annotations

import re

import pytest

from pytest_fkit.config.folders import check_folders
from pytest_fkit.config.options import BY_NAME
from pytest_fkit.config.settings import Settings, gpu_settings_of, measures_usage, settings_of
from pytest_fkit.config.values import parse
from pytest_fkit.gpu.errors.patterns import user_patterns


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("500M", 500 * 1024**2),
        ("1.5G", 3 * 1024**3 // 2),
        ("64KiB", 64 * 1024),
        ("64 kb", 64 * 1024),
        ("2tb", 2 * 1024**4),
        (4096, 4096),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert parse(BY_NAME["fkit_memory_limit"], text) == size


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "2X", "1,5G", "1.G", True, None, "2G free", "9" * 400]
)
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="expected a size such as 500M or 2G"):
        parse(BY_NAME["fkit_memory_limit"], text)


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("1.5", 1.5), (3, 3.0), ("1e2", 100.0)])
def test_seconds(text: object, seconds: float) -> None:
    assert parse(BY_NAME["fkit_timeout"], text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", -0.1, "inf", "nan", True, None])
def test_what_are_no_seconds(text: object) -> None:
    with pytest.raises(ValueError, match="expected a non-negative number of seconds"):
        parse(BY_NAME["fkit_timeout"], text)


def test_seconds_that_no_clock_counts() -> None:
    assert parse(BY_NAME["fkit_timeout"], "1e9") == 1e9
    with pytest.raises(ValueError, match="expected at most 1000000000 seconds"):
        parse(BY_NAME["fkit_timeout"], "1e10")


@pytest.mark.parametrize("text", ["", "maybe", 2, None, ["on"]])
def test_what_is_no_switch(text: object) -> None:
    switch = BY_NAME["fkit_probe"]
    assert (parse(switch, "on"), parse(switch, "off")) == (True, False)
    with pytest.raises(ValueError, match="expected on or off"):
        parse(switch, text)


def test_defaults(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_TIMEOUT", raising=False)
    monkeypatch.delenv("FKIT_STACKS")
    parsed = settings_of(pytester.parseconfig("--fkit"))
    assert parsed == Settings(
        workers=None, isolation="function", start_method="auto", timeout=600.0, memory_limit=0,
        grace=30.0, worker_timeout=60.0, journal=None, trace=None, resume=None, html=None,
        mask=(), top=0, probe=True, max_retries=1, retire_after=3, fail_on_retry=False,
        widen=False, warmup=False, gpu_memory_timeout=60.0, stacks="auto", cores=None,
        keep_cores=3, wrapper=(), artifacts=None, sanitizer_reports="name", slow=60.0,
        footer="auto", session_timeout=0.0,
    )  # fmt: skip
    with pytest.raises(AttributeError):
        parsed.timeout = 1.0  # type: ignore[misc]


def test_options_win_over_ini_values(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nfkit_timeout = 5\nfkit_isolation = class\nfkit_grace = 7")
    parsed = settings_of(pytester.parseconfig("--fkit-timeout=6", "--fkit-workers=3"))
    assert (parsed.timeout, parsed.isolation, parsed.grace) == (6.0, "class", 7.0)
    assert parsed.workers == 3


@pytest.mark.parametrize(
    ("ini", "argument", "source"),
    [
        ("fkit_timeout = x", "", "ini value fkit_timeout=x"),
        ("", "--fkit-grace=x", "--fkit-grace=x"),
    ],
)
def test_errors_name_the_source(
    pytester: pytest.Pytester, ini: str, argument: str, source: str
) -> None:
    pytester.makeini(f"[pytest]\n{ini}")
    with pytest.raises(pytest.UsageError, match=source):
        settings_of(pytester.parseconfig(*filter(None, [argument])))


def test_pytest_timeouts_option_is_honoured_where_the_plugin_is_absent(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_TIMEOUT", "9")
    config = pytester.parseconfig("-p", "no:timeout", "--timeout=8")
    assert settings_of(config).others_timeout == 8.0
    assert settings_of(pytester.parseconfig("-p", "no:timeout")).others_timeout == 9.0
    ours = pytester.parseconfig("-p", "no:timeout", "--fkit-timeout=1")
    assert settings_of(ours).others_timeout is None


def test_what_is_said_of_gpu_errors(pytester: pytest.Pytester) -> None:
    pytester.makeini(
        "[pytest]\nfkit_max_retries = 2\nfkit_retire_after = 0\nfkit_fail_on_retry = true\n"
        "fkit_gpu_errors =\n    warp stuck\n    memory: arena full"
    )
    config = pytester.parseconfig()
    parsed = settings_of(config)
    assert (parsed.max_retries, parsed.retire_after, parsed.fail_on_retry) == (2, 0, True)
    assert [(each.category, each.regex.pattern) for each in user_patterns(config)] == [
        ("other", "warp stuck"),
        ("memory", "arena full"),
    ]
    asked = ("--fkit-max-retries=0", "--fkit-retire-after=5")
    parsed = settings_of(pytester.parseconfig(*asked))
    assert (parsed.max_retries, parsed.retire_after) == (0, 5)


@pytest.mark.parametrize("option", ["--fkit-max-retries", "--fkit-retire-after"])
def test_what_is_no_number_of_gpu_errors(pytester: pytest.Pytester, option: str) -> None:
    with pytest.raises(pytest.UsageError, match=f"{option}=-1: expected a non-negative integer"):
        settings_of(pytester.parseconfig(f"{option}=-1"))


def test_patterns_that_are_none(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nfkit_gpu_errors = a(b")
    with pytest.raises(pytest.UsageError, match=r"fkit_gpu_errors: 'a\(b': no regular .*CATEGORY:"):
        user_patterns(pytester.parseconfig())


@pytest.mark.parametrize(
    ("ini", "arguments", "expected"),
    [("", (), False), ("fkit_widen = true", (), True), ("", ("--fkit-widen",), True)],
)
def test_widen(
    pytester: pytest.Pytester, ini: str, arguments: tuple[str, ...], expected: bool
) -> None:
    pytester.makeini(f"[pytest]\n{ini}")
    assert settings_of(pytester.parseconfig(*arguments)).widen is expected


_NATIVE = pytest.mark.skipif(
    int(pytest.__version__.partition(".")[0]) < 9, reason="native TOML is new in pytest 9"
)

_TOML = """\
fkit_timeout = 120
fkit_grace = 0
fkit_worker_timeout = 1.5
fkit_memory_limit = 1000000
fkit_top = 3
fkit_max_retries = "2"
fkit_isolation = "class"
fkit_probe = false
fkit_widen = true
fkit_warmup = "off"
fkit_fail_on_retry = true
fkit_journal = "run.jsonl"
fkit_trace = 7
fkit_html = "report.html"
fkit_mask = ["X_*", "/acct-[0-9]+/"]
fkit_gpus = [0, 2]
fkit_gpus_per_worker = 1
fkit_cpu_workers = 0
fkit_env = ["A=1", "B=2"]
fkit_gpu_errors = "warp stuck"
timeout = 4
"""


@_NATIVE
@pytest.mark.parametrize(
    ("name", "table"), [("pytest.toml", "[pytest]"), ("pyproject.toml", "[tool.pytest]")]
)
def test_native_toml(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str, table: str
) -> None:
    monkeypatch.delenv("PYTEST_TIMEOUT", raising=False)
    monkeypatch.delenv("FKIT_STACKS")
    pytester.path.joinpath(name).write_text(f"{table}\n{_TOML}")
    config = pytester.parseconfig("-p", "no:timeout", "-o", "fkit_max_retries=5")
    assert settings_of(config) == Settings(
        workers=None, isolation="class", start_method="auto", timeout=120.0,
        memory_limit=1_000_000, grace=0.0, worker_timeout=1.5, journal=pytester.path / "run.jsonl",
        trace=pytester.path / "7", resume=None,
        html=pytester.path / "report.html", mask=(("X_*", ""), ("", "acct-[0-9]+")),
        top=3, probe=False, max_retries=5, retire_after=3,
        fail_on_retry=True, widen=True, warmup=False, gpu_memory_timeout=60.0,
        stacks="auto", cores=None, keep_cores=3, wrapper=(), artifacts=None,
        sanitizer_reports="name", slow=60.0, footer="auto", session_timeout=0.0,
        others_timeout=4.0,
        isolation_asked=True,
    )  # fmt: skip
    assert measures_usage(config)
    gpus = gpu_settings_of(config, config.option)
    assert (gpus.gpus, gpus.gpus_per_worker, gpus.cpu_workers) == (("0", "2"), 1, 0)
    assert gpus.env == (("A", "1"), ("B", "2"))
    assert [each.regex.pattern for each in user_patterns(config)] == ["warp stuck"]


@_NATIVE
def test_what_is_wrong_in_toml_is_named(pytester: pytest.Pytester) -> None:
    known = re.findall(r"^(\w+) =", _TOML, re.MULTILINE)
    for name in known:
        # No ini value of ours is a list of dates.
        pytester.path.joinpath("pytest.toml").write_text(f"[pytest]\n{name} = [2020-02-02]")
        config = pytester.parseconfig("-p", "no:timeout")
        with pytest.raises(pytest.UsageError, match=f"pytest-fkit: ini value {name}"):
            (settings_of(config), gpu_settings_of(config, config.option), user_patterns(config))


def test_a_folder_that_can_not_be_written_is_named(pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("file").write_text("")
    config = pytester.parseconfig("--fkit", "--fkit-cores=file/cores")
    with pytest.raises(pytest.UsageError) as raised:
        check_folders(config, settings_of(config))
    assert str(raised.value) == (
        "pytest-fkit: --fkit-cores=file/cores: Not a directory; expected a folder to write to"
    )
