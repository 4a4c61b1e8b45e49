"""The lean dataclass, NamedTuple and Protocol do what the originals do."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

import pytest

from v6fwd.model import Endpoint, Limits, lean

Maker = Callable[[Any], Any]


def made(dataclass: Any, field: Any, *, frozen: bool) -> Any:
    """A class made by one of the two."""

    @dataclass(frozen=frozen, slots=True)
    class Thing:
        """A thing."""

        name: str
        number: int = 3
        many: list[int] = field(default_factory=list)

        @property
        def twice(self) -> int:
            """Twice the number."""
            return 2 * self.number

    return Thing


ORIGINAL, LEAN = (dataclasses.dataclass, dataclasses.field), (lean.dataclass, lean.field)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    "ask",
    [
        lambda kind: repr(kind("a")).rpartition(".")[2],
        lambda kind: repr(kind("a", many=[1], number=2)).rpartition(".")[2],
        lambda kind: kind("a") == kind("a"),
        lambda kind: kind("a") == kind("b"),
        lambda kind: kind("a") == ("a", 3, []),
        lambda kind: kind("a").twice,
        lambda kind: kind("a").many is kind("a").many,
        lambda kind: kind(),
        lambda kind: kind("a", 1, [], 4),
        lambda kind: kind("a", other=4),
        lambda kind: kind("a", name="b"),
        lambda kind: hash(kind("a", 3, ())) == hash(kind("a", 3, ())),
        lambda kind: hash(kind("a")),
        lambda kind: setattr(kind("a"), "name", "b"),
        lambda kind: delattr(kind("a"), "name"),
        lambda kind: kind("a").__dict__,
        lambda kind: kind.__slots__,
        lambda kind: kind.__match_args__,
        lambda kind: kind.__doc__,
        lambda kind: kind.__name__,
        lambda kind: kind.number.__class__.__name__,
        lambda kind: dataclasses.is_dataclass(kind),
        lambda kind: [(each.name, each.default) for each in dataclasses.fields(kind)][:2],
        lambda kind: dataclasses.fields(kind)[2].default_factory,
        lambda kind: [each.type for each in dataclasses.fields(kind("a"))],
        lambda kind: dataclasses.asdict(kind("a")),
        lambda kind: dataclasses.astuple(dataclasses.replace(kind("a"), number=9)),
        lambda kind: dataclasses.replace(kind("a"), other=9),
    ],
)
def test_a_dataclass_is_as_the_original(ask: Maker, frozen: bool) -> None:
    answers = []
    for dataclass, field in (ORIGINAL, LEAN):
        try:
            answers.append(ask(made(dataclass, field, frozen=frozen)))
        except Exception as error:
            answers.append(isinstance(error, AttributeError) or type(error))
    assert answers[0] == answers[1]


def named(original: Any) -> Any:
    """A class made by one of the two."""
    body = {
        "__module__": __name__,
        "__qualname__": "Place",
        "__doc__": "A place.",
        "__annotations__": {"host": "str", "port": "int"},
        "port": 80,
        "text": property(lambda self: f"{self.host}:{self.port}"),
        "__str__": lambda self: self.text,
    }
    return types.new_class("Place", (original,), exec_body=lambda space: space.update(body))


@pytest.mark.parametrize(
    "ask",
    [
        lambda kind: (kind("a"), kind("a", 1), kind(port=4, host="b")),
        lambda kind: str(kind("a")),
        lambda kind: repr(kind("a")),
        lambda kind: kind("a").text,
        lambda kind: kind("a")._replace(port=7),
        lambda kind: kind._fields,
        lambda kind: kind._field_defaults,
        lambda kind: kind.__doc__,
        lambda kind: kind.__module__,
        lambda kind: kind.__qualname__,
        lambda kind: isinstance(kind("a"), tuple),
        lambda kind: setattr(kind("a"), "other", 3),
        lambda kind: kind(),
    ],
)
def test_a_named_tuple_is_as_the_original(ask: Maker) -> None:
    answers = []
    for original in (typing.NamedTuple, lean.NamedTuple):
        try:
            answers.append(ask(named(original)))
        except Exception as error:
            answers.append(type(error))
    assert answers[0] == answers[1]


def test_a_protocol_adds_nothing() -> None:
    protocol: Any = lean.Protocol
    generic: Any = lean.Generic
    events: Any = types.new_class("Events", (protocol[int],), exec_body=_without_dict)
    shares: Any = types.new_class("Shares", (generic[int],), exec_body=_without_dict)
    flow: Any = types.new_class("Flow", (events, protocol), exec_body=_without_dict)
    assert not hasattr(flow(), "__dict__")
    assert not hasattr(shares(), "__dict__")


def _without_dict(space: dict[str, Any]) -> None:
    space["__slots__"] = ()


def test_the_nouns_can_be_asked_by_dataclasses() -> None:
    """The configuration, the control socket and the status page do."""
    assert dataclasses.replace(Endpoint("::", 1), port=2) == Endpoint("::", 2)
    assert {each.name for each in dataclasses.fields(Limits)} == {*Limits.__slots__}


def test_neither_typing_nor_dataclasses_is_imported() -> None:
    code = "import sys, v6fwd.model; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {PATH!r}); {code}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert not {"typing", "dataclasses", "re", "inspect"} & {*done.stdout.split()}


PATH = lean.__file__.removesuffix("/v6fwd/model/lean.py")
