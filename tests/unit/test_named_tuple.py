"""Our NamedTuple behaves as typing's."""

from __future__ import annotations

import copy
import pickle
import re
import typing
from pathlib import Path
from typing import Any

import pytest

import pytest_fkit
from pytest_fkit.named_tuple import NamedTuple


class Ours(NamedTuple):
    """A value."""

    name: str
    number: int | None = None
    rest: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.name}: {self.number}"

    @classmethod
    def empty(cls) -> Ours:
        return cls("")

    def __str__(self) -> str:
        return self.title


class Typings(typing.NamedTuple):
    """A value."""

    name: str
    number: int | None = None
    rest: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.name}: {self.number}"

    @classmethod
    def empty(cls) -> Typings:
        return cls("")

    def __str__(self) -> str:
        return self.title


class Nothing(NamedTuple):
    """A value without fields."""


def of(kind: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return kind(*args, **kwargs)
    except TypeError as error:
        return str(error).replace("Typings", "Ours")


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (("a",), {}), (("a", 1, ("b",)), {}), (("a",), {"rest": ("b",)}), ((), {"name": "a"}),
        ((), {}), (("a", 1, (), 2), {}), (("a",), {"name": "b"}), (("a",), {"other": 1}),
    ],
)  # fmt: skip
def test_made_alike(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    ours, typings = of(Ours, *args, **kwargs), of(Typings, *args, **kwargs)
    assert ours == typings
    if isinstance(ours, Ours):
        assert repr(ours) == repr(typings).replace("Typings", "Ours")
        assert str(ours) == str(typings) == ours.title
        assert hash(ours) == hash(typings)
        assert ours._asdict() == typings._asdict()
        assert (ours.name, ours.number, ours.rest) == tuple(typings)


def test_class() -> None:
    for name in ("__doc__", "__module__", "_fields", "__slots__"):
        assert getattr(Ours, name) == getattr(Typings, name)
    assert list(Ours.__annotations__) == list(Typings.__annotations__)
    assert Ours.__qualname__ == "Ours"
    assert Ours.empty() == ("", None, ())
    assert Nothing() == ()


def test_replaced() -> None:
    value = Ours("a", 1)
    assert value._replace(number=2) == Ours("a", 2)
    assert type(value._replace(name="b")) is Ours
    with pytest.raises(ValueError, match="other"):
        value._replace(other=1)  # type: ignore[call-arg]
    assert Ours._make(["a", 1, ()]) == value


def test_can_not_be_changed() -> None:
    with pytest.raises(AttributeError):
        Ours("a").name = "b"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Ours("a").other = "b"  # type: ignore[attr-defined]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_copied(protocol: int) -> None:
    value = Ours("a", 1, ("b",))
    again = pickle.loads(pickle.dumps(value, protocol))
    assert (again, type(again)) == (value, Ours)
    again = copy.deepcopy(value)
    assert (again, type(again)) == (value, Ours)


def test_no_class_shares_its_function_with_another() -> None:
    class Other(NamedTuple):
        one: int
        two: int = 5
        three: int = 6

    assert Other(1) == (1, 5, 6)
    assert Ours("a") == ("a", None, ())
    assert Other(three=1, one=2)._asdict() == {"one": 2, "two": 5, "three": 1}


def test_it_is_used_wherever_fkit_is_on() -> None:
    root = Path(pytest_fkit.__file__).parent
    others = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r"^from typing import .*\bNamedTuple\b", path.read_text(), re.M)
    }
    assert others == {"config/options.py"}  # which every pytest imports
