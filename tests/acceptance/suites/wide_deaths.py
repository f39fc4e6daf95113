"""Wide fixtures that kill their process. The file is copied into inner runs."""

from __future__ import annotations

import ctypes
import os
import unittest
from typing import Iterator

import pytest


def note(name: str) -> None:
    with open("noted", "a") as file:
        file.write(f"{name}\n")


def crash() -> None:
    ctypes.string_at(0)  # here: crash


# --- setup ---


@pytest.fixture(scope="session")
def session_setup() -> None:
    note("session_setup")
    print("said by the session's fixture")
    crash()


@pytest.fixture(scope="module")
def module_setup() -> None:
    note("module_setup")
    os._exit(5)


@pytest.fixture(scope="class")
def class_setup() -> None:
    note("class_setup")
    os.abort()


def test_session_setup_1(session_setup: None) -> None:
    note("must not run")


def test_session_setup_2(session_setup: None) -> None:
    note("must not run")


def test_module_setup_1(module_setup: None) -> None:
    note("must not run")


def test_module_setup_2(module_setup: None) -> None:
    note("must not run")


class TestClassFixture:
    def test_class_setup_1(self, class_setup: None) -> None:
        note("must not run")

    def test_class_setup_2(self, class_setup: None) -> None:
        note("must not run")

    def test_without_it(self) -> None:
        pass


class TestSetupClass:
    @classmethod
    def setup_class(cls) -> None:
        note("setup_class")
        crash()

    def test_setup_class_1(self) -> None:
        note("must not run")

    def test_setup_class_2(self) -> None:
        note("must not run")


class TestSetUpClass(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        note("setUpClass")
        crash()

    def test_unittest_setup_1(self) -> None:
        note("must not run")

    def test_unittest_setup_2(self) -> None:
        note("must not run")


@pytest.fixture(scope="module")
def module_raises() -> None:
    note("module_raises")
    raise ValueError("the reason")


def test_module_raises_1(module_raises: None) -> None:
    note("must not run")


def test_module_raises_2(module_raises: None) -> None:
    note("must not run")


@pytest.fixture(scope="class", params=["sound", "dies", "sound again"])
def parametrized(request: pytest.FixtureRequest) -> None:
    if request.param == "dies":
        crash()


class TestParameters:
    def test_parameter_1(self, parametrized: None) -> None:
        pass

    def test_parameter_2(self, parametrized: None) -> None:
        pass


# --- output of a wide setup, and a death after it ---


@pytest.fixture(scope="class")
def talks() -> Iterator[None]:
    print("wide setup")
    yield
    print("wide teardown")


@pytest.fixture
def dies_after_it(talks: None) -> None:
    print("narrow setup")
    crash()


class TestTalks:
    def test_output_of_wide_setup(self, dies_after_it: None) -> None:
        pass


@pytest.fixture(scope="class")
def asks_in_the_test() -> None:
    note("asks_in_the_test")
    crash()


class TestGetfixturevalue:
    def test_getfixturevalue(self, request: pytest.FixtureRequest) -> None:
        request.getfixturevalue("asks_in_the_test")


# --- teardown ---


@pytest.fixture
def narrow() -> Iterator[None]:
    yield
    print("narrow teardown")


@pytest.fixture(scope="class")
def class_teardown() -> Iterator[None]:
    note("class_teardown is set up")
    yield
    note("class_teardown")
    print("wide teardown")
    crash()


class TestClassTeardown:
    def test_class_teardown_1(self, class_teardown: None) -> None:
        pass

    def test_class_teardown_2(self, class_teardown: None, narrow: None) -> None:
        print("in the call")


class TestTeardownClass:
    @classmethod
    def teardown_class(cls) -> None:
        note("teardown_class")
        os._exit(0)

    def test_teardown_class_1(self) -> None:
        pass

    def test_teardown_class_2(self) -> None:
        pass


class TestTearDownClass(unittest.TestCase):
    @classmethod
    def tearDownClass(cls) -> None:
        note("tearDownClass")
        crash()

    def test_unittest_teardown_1(self) -> None:
        pass

    def test_unittest_teardown_2(self) -> None:
        pass


@pytest.fixture(scope="class")
def class_teardown_of_xfail() -> Iterator[None]:
    yield
    crash()


class TestXfail:
    @pytest.mark.xfail(reason="known")
    def test_xfail_wide_teardown(self, class_teardown_of_xfail: None) -> None:
        raise AssertionError("expected")


def test_after_the_classes() -> None:
    pass
