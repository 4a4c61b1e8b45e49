"""Turns typed values into plain data (numbers, texts, lists) and back, checked by their types.

Only what the type hints allow is accepted, so nothing that was not declared comes back. Numbers are
never negative: none of ours is.
"""

from __future__ import annotations

import functools
import ipaddress
import math
import types
from collections.abc import Callable
from dataclasses import is_dataclass
from enum import StrEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

Read = Callable[[Any], Any]
"""Checks a plain value and returns the typed one; raises ValueError."""

MAX_NUMBER = 1 << 63
MAX_TEXT = 8192
"""Characters; a path has at most 4,096."""
MAX_KEYS = 256
"""Keys of a dict of counters. They are causes, of which there are some dozens."""
MAX_KEY = 256
_NETWORKS = {ipaddress.IPv4Network, ipaddress.IPv6Network}


def to_plain(value: Any) -> Any:
    """Return a value of dataclasses, tuples and networks as JSON can write it."""
    if is_dataclass(value):
        return [to_plain(getattr(value, name)) for name in _names(type(value))]
    if isinstance(value, tuple):
        return [to_plain(each) for each in value]
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return str(value)
    return value


@functools.cache
def reader(kind: Any) -> Read:
    """Return what reads values of a type. Raises TypeError for types that nobody sends."""
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _choice(kind)
    if is_dataclass(kind):
        return _record(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType) and set(arguments) == _NETWORKS:
        return _network
    if origin is tuple and arguments[1:] == (...,):
        return _tuple(reader(arguments[0]))
    if origin is list:
        return _list(reader(arguments[0]))
    if origin is dict:
        return _dict(reader(arguments[0]), reader(arguments[1]))
    raise TypeError(f"{kind} is not sent")


def field_readers(kind: Any) -> dict[str, Read]:
    """Return what reads each field of a dataclass, by name."""
    hints = get_type_hints(kind)
    return {name: reader(hints[name]) for name in _names(kind)}


def _names(kind: Any) -> tuple[str, ...]:
    return tuple(kind.__dataclass_fields__)


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("not true or false")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MAX_NUMBER:
        raise ValueError("not a whole number")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < MAX_NUMBER or not math.isfinite(value):
        raise ValueError("not a number")
    return float(value)


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > MAX_TEXT:
        raise ValueError("not a text")
    return value


_SIMPLE: dict[Any, Read] = {bool: _truth, int: _whole, float: _number, str: _text}


@functools.lru_cache(maxsize=1024)
def _parsed_network(text: str) -> Any:
    return ipaddress.ip_network(text)


def _network(value: Any) -> Any:
    return _parsed_network(_text(value))


def _choice(kind: type[StrEnum]) -> Read:
    known = {str(each): each for each in kind}

    def read(value: Any) -> StrEnum:
        found = known.get(value) if type(value) is str else None
        if found is None:
            raise ValueError(f"not a {kind.__name__}")
        return found

    return read


def _record(kind: Any) -> Read:
    readers = tuple(field_readers(kind).values())

    def read(value: Any) -> Any:
        if type(value) is not list or len(value) != len(readers):
            raise ValueError(f"not a {kind.__name__}")
        return kind(*[one(each) for one, each in zip(readers, value, strict=True)])

    return read


def _list(one: Read) -> Read:
    def read(value: Any) -> list[Any]:
        if type(value) is not list:
            raise ValueError("not a list")
        return [one(each) for each in value]

    return read


def _tuple(one: Read) -> Read:
    read_list = _list(one)
    return lambda value: tuple(read_list(value))


def _dict(key: Read, one: Read) -> Read:
    def read(value: Any) -> dict[Any, Any]:
        if type(value) is not dict or len(value) > MAX_KEYS:
            raise ValueError("not a dict of counters")
        for name in value:
            if len(name) > MAX_KEY or not name.isprintable():
                raise ValueError("not a cause")
        return {key(name): one(each) for name, each in value.items()}

    return read
