"""What failures have in common, and what does not matter to it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_fkit.journal.causes import LONGEST, Cause, Met, cause, grouped, masked

PARTS = {
    "n": st.integers().map(str) | st.floats(allow_nan=False, allow_infinity=False).map(repr),
    "address": st.integers(0, 2**64 - 1).map(hex),
    "id": st.uuids().map(str) | st.integers(10**8, 10**9).map("beef{}".format),
    "path": st.lists(st.sampled_from(["a", "b_2", "c-d"]), min_size=2).map(
        lambda names: f"/{'/'.join(names)}.py"
    ),
    "size": st.integers(1, 999).map("{}.5 GiB".format),
    "time": st.datetimes().map(lambda moment: moment.isoformat()),
    "clock": st.times().map(lambda time: time.isoformat()),
    "took": st.integers(0, 10**6).map(lambda took: f"{took // 60}min{took % 60}s"),
    "user": st.integers(10**4, 10**9).map("user_{}".format),
    "rank": st.integers(0, 99).map("[rank{}]:".format),
    "commit": st.integers(10**5, 10**6 - 1).map("c{}".format),
}
WORDS = st.sampled_from(["expected", "float32", "conv2d", "on", "tensor", "and/or", "got"])


@st.composite
def one_message_twice(draw: Any) -> tuple[str, str]:
    """A message as two tests, or two machines, word it."""
    both: tuple[list[str], list[str]] = ([], [])
    for _ in range(draw(st.integers(1, 8))):
        part = PARTS[draw(st.sampled_from(sorted(PARTS)))]
        word = draw(WORDS)
        for message in both:
            message += [word, draw(part)]
    return " ".join(both[0]), " ".join(both[1])


@given(one_message_twice())
@settings(deadline=None, max_examples=50)
def test_numbers_addresses_ids_and_paths_make_no_difference(messages: tuple[str, str]) -> None:
    one, other = map(masked, messages)
    assert one == other


@given(st.text(), st.text())
def test_what_is_masked_has_one_short_line_and_stays_as_it_is(first: str, second: str) -> None:
    text = masked(f"{first} 1 {second}")
    assert text.isprintable()
    assert len(text) <= LONGEST
    assert masked(text) == text


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=30))
def test_arrays_of_any_length_are_alike(values: list[float]) -> None:
    assert masked(f"got {values}, expected [1, 2]") == masked("got [0.5, 1], expected [7, 8, 9]")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dtype float32", "dtype float64"),
        ("no attribute 'conv2d'", "no attribute 'conv3d'"),
        ("not for gfx1100", "not for gfx942"),
        ("codec cp1252", "codec cp437"),
        ("km/h", "and/or"),
        ("connection refused", "connection reset"),
    ],
)
def test_words_make_a_difference(one: str, other: str) -> None:
    assert masked(one) != masked(other)


def test_messages_as_libraries_word_them() -> None:
    found = {
        masked(each)
        for each in (
            "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 12.5 GiB free.",
            "CUDA out of memory. Tried to allocate 512.00 MiB. GPU 3 has 1.25 GiB free.",
        )
    }
    assert found == {"CUDA out of memory. Tried to allocate <size>. GPU <n> has <size> free."}
    assert masked("can't connect to https://host:80/a?b=1 (gw3)") == (
        "can't connect to <path> (<id>)"
    )


LONG = """\
x = 1

    def test_it(x):
>       load(x)

tests/test_a.py:12: 
_ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ 
src/pkg/a.py:4: in load
    return json.loads(x)
_ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ 
/usr/lib/python3.11/json/__init__.py:346: in loads
    return _default_decoder.decode(s)
_ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ 

    def inner(x):
>       raise ValueError(x)
E       tests/other.py:3: in a_diff
E       ValueError: bad 1

.venv/lib/python3.11/site-packages/lib/b.py:5: ValueError
"""  # noqa: W291
OWN = LONG.replace(".venv/lib/python3.11/site-packages/", "")
NATIVE = """\
Traceback (most recent call last):
  File "/ci/1/repo/tests/test_a.py", line 12, in test_it
    load(x)
  File "/ci/1/repo/.venv/lib/python3.11/site-packages/lib/b.py", line 5, in inner
    raise ValueError(x)
  File "<string>", line 5, in inner
ValueError: bad 1
"""
INSTALLED = """\
/opt/lib/python3.12/site-packages/lib/tests/test_a.py:12: in test_it
    load(x)
/opt/lib/python3.12/json/decoder.py:4: in load
    raise ValueError(x)
E   ValueError: bad 1
"""
FIXTURE = """\
file /x/test_a.py, line 25
  def test_nofixture(nope): pass
E       fixture 'nope' not found
>       available fixtures: capsys
"""


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({"text": LONG, "message": "ValueError: bad 1"}, "src/pkg/a.py in load"),
        ({"text": OWN, "message": "ValueError: bad 2"}, "lib/b.py in inner"),
        ({"text": NATIVE, "message": "ValueError: bad 3"}, "repo/tests/test_a.py in test_it"),
        ({"text": INSTALLED, "message": "ValueError: bad"}, "lib/tests/test_a.py in test_it"),
        ({"text": "E   ValueError: bad 1", "message": "ValueError: bad 1"}, ""),
    ],
)
def test_the_frame_is_the_innermost_of_the_users_own_code(
    report: dict[str, str], expected: str
) -> None:
    found = cause([{"when": "call", "outcome": "failed", **report}])
    assert found is not None
    assert (found.kind, found.frame) == ("ValueError", expected)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({"message": "assert 1 == 2"}, ("AssertionError", "assert <n> == <n>", "")),
        (
            {"message": "AssertionError: \nNot equal to 1e-07\n\nMismatched"},
            ("AssertionError", "Not equal to <n>", ""),
        ),
        ({"message": "KeyError"}, ("KeyError", "", "")),
        ({"message": "a.b.Odd: \x1b\ud800[m 5"}, ("a.b.Odd", "??[m <n>", "")),
        ({"text": FIXTURE}, ("", "fixture 'nope' not found", "")),
        ({"text": "[XPASS(strict)] why"}, ("", "[XPASS(strict)] why", "")),
        ({"text": "012 >>> f()\n/x/y/z/a.py:3: DocTestFailure"},
         ("DocTestFailure", "<n> >>> f()", "y/z/a.py")),
        ({"fkit_death": "SIGSEGV at t/a.py:3 in f"}, ("SIGSEGV", "", "t/a.py in f")),
        ({"fkit_death": "SIGSEGV in g (g.c:4) at a.py:3"}, ("SIGSEGV in g (g.c:<n>)", "", "a.py")),
        (
            {"fkit_death": "SIGSEGV probably in g (g.c:4) at a.py:3"},
            ("SIGSEGV in g (g.c:<n>)", "", "a.py"),
        ),
        ({"fkit_death": "SIGABRT: it said 5 at a.py:3"}, ("SIGABRT", "it said <n>", "a.py")),
        ({"fkit_death": "exit status 3"}, ("exit status 3", "", "")),
        (
            {
                "message": "Failed: module-scoped fixture 'w' was not set up again: SIGSEGV while "
                "setting up module-scoped fixture 'w' at t/a.py:3 in w\nsee the report on x",
            },
            ("SIGSEGV while setting up module-scoped fixture 'w'", "", "t/a.py in w"),
        ),
        ({"fkit_death": "exit status 3: MPI_ABORT 5"}, ("exit status 3", "MPI_ABORT <n>", "")),
        (
            {"fkit_death": "timed out after 0.3 s at a.py:4 in f"},
            ("timed out after <n> s", "", "a.py in f"),
        ),
        ({"fkit_death": "lost: worker gw3 died"}, ("lost", "worker <id> died", "")),
        (
            {"fkit_death": "memory limit 1 GiB exceeded (1.5 GiB)"},
            ("memory limit <size> exceeded (<size>)", "", ""),
        ),
        ({}, ("", "", "")),
    ],
)  # fmt: skip
def test_what_it_was(report: dict[str, str], expected: tuple[str, str, str]) -> None:
    reports = [{"when": "setup", "outcome": "passed"}, {"outcome": "failed", **report}]
    assert cause(reports) == Cause(*expected)


def test_what_did_not_fail_has_none() -> None:
    assert cause([{"when": "call", "outcome": "passed"}, {"outcome": "rerun"}]) is None
    assert cause([]) is None


def test_a_cause_has_its_tests_workers_and_gpus_the_most_frequent_first() -> None:
    one, other = Cause("A", "", ""), Cause("B", "x", "a.py in f")
    found = grouped(
        [
            Met("t1", one, "gw0", ("0",)), Met("t2", other, "gw10", ("10", "2")),
            Met("t3", other, "gw9", ("9", "2")), Met("t4", other),
        ]
    )  # fmt: skip
    assert [(each.cause, [test.nodeid for test in each.tests]) for each in found] == [
        (other, ["t2", "t3", "t4"]),
        (one, ["t1"]),
    ]
    assert (found[0].workers, found[0].gpus) == (["gw9", "gw10"], ["2", "9", "10"])
    assert found[0].cause.title == "B: x at a.py in f"


@given(st.text(alphabet="ab_ :/.\n<>E0\"'-|", max_size=300))
@settings(deadline=None)
def test_any_text_has_a_cause(text: str) -> None:
    for name in ("text", "message", "fkit_death"):
        found = cause([{"outcome": "failed", name: text}])
        assert found is not None
        assert re.fullmatch(r"[^\n]*", found.title)
