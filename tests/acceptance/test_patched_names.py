"""Every public callable of what we, and pytest, stand on: patched, in tests and in wide fixtures.

One kind of patch for every eighth name; with ``FKIT_EVERY_PATCH=1`` in the environment all of
them: raises, returns None or is a mock; undone or not; in a test that passes or fails.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from patching import Case, Suite, cases, clean, differences, survivors

EVERY = os.environ.get("FKIT_EVERY_PATCH") == "1"

INCOMPLETE_TEXT = Case("builtins", "super", "none", restored=True, passes=False)
"""With it pytest can't complete what it makes of a failure."""

# Each gets another kind of patch for a name.
MODES = [("-n2", 0), ("-n1", 5), ("-n0", 7)]


@pytest.mark.parametrize(("workers", "offset"), MODES)
def test_patches_in_tests(tmp_path: Path, workers: str, offset: int) -> None:
    suite = Suite(tmp_path, wide=False)
    chosen = list(dict.fromkeys([*cases(EVERY, offset), INCOMPLETE_TEXT]))
    plain = suite.plain(chosen)
    chosen = survivors(suite, chosen, plain[0])
    assert len(chosen) > 50
    ours = suite.ours(chosen, workers)
    assert not differences(suite, chosen, plain, ours)
    assert ours[2].status == 1


@pytest.mark.parametrize(("workers", "offset"), [("-n2", 3), ("-n0", 1)])
def test_patches_that_are_undone_where_tests_share_a_process(
    tmp_path: Path, workers: str, offset: int
) -> None:
    suite = Suite(tmp_path, wide=False)
    chosen = cases(EVERY, offset, restored=[True])
    plain = suite.plain(chosen)
    chosen = clean(suite, chosen, plain[0])
    assert len(chosen) > 50
    ours = suite.ours(chosen, workers, "--fkit-isolation=session")
    assert not differences(suite, chosen, plain, ours)


@pytest.mark.parametrize(("workers", "offset"), [("-n2", 2), ("-n0", 9)])
def test_patches_in_wide_fixtures(tmp_path: Path, workers: str, offset: int) -> None:
    suite = Suite(tmp_path, wide=True)
    chosen = [case for case in cases(EVERY, offset) if case.passes or not EVERY]
    plain = suite.plain(chosen)
    restored = clean(suite, chosen, plain[0])
    never = [case for case in survivors(suite, chosen, plain[0]) if not case.restored]
    ours = suite.ours([*restored, *never], workers)
    assert not differences(suite, [*restored, *never], plain, ours)


def test_patches_that_plain_pytest_does_not_survive(tmp_path: Path) -> None:
    suite = Suite(tmp_path, wide=False)
    chosen = cases(EVERY, 4)
    plain, _ = suite.plain(chosen)
    fatal = [case for case in chosen if case not in survivors(suite, chosen, plain)]
    assert len(fatal) > 2
    for case in fatal if EVERY else fatal[::3]:
        said, _, run = suite.ours([case], "-n0")
        [nodeid] = suite.nodeids(case)
        if case.passes and run.status == 0:
            continue  # plain pytest fails where it writes of the test, which another process does
        assert run.status not in (0, 5), (case, run.out)
        failed = any("failed" in phase for phase in said[nodeid].phases)
        assert failed or "INTERNALERROR" in run.out + run.err, (case, run.out)
