"""Finds forwards that lead back to themselves, by what their text says."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

from v6fwd.model.nouns import MAPPED_PREFIX, Endpoint, Forward

IsLocal = Callable[[bytes], bool]
"""Whether 4 or 16 network bytes are an address of this host."""

_LOOPBACK = {4: bytes((127, 0, 0, 1)), 16: bytes(15) + b"\1"}


def is_loopback(packed: bytes) -> bool:
    """Whether it is in 127.0.0.0/8 or ::1."""
    return packed[0] == 127 if len(packed) == 4 else packed == _LOOPBACK[16]


def looping(forwards: Sequence[Forward], is_local: IsLocal) -> list[Forward]:
    """The forwards whose flows would come to the same forward again, perhaps by way of others.

    Names other than localhost are not resolved.
    """
    follows = {forward.listen: _behind(forward, forwards, is_local) for forward in forwards}
    return [forward for forward in forwards if forward in _reached(forward, follows)]


def _reached(start: Forward, follows: dict[Endpoint, list[Forward]]) -> list[Forward]:
    reached: list[Forward] = []
    todo = [start]
    while todo:
        for forward in follows[todo.pop().listen]:
            if forward not in reached:
                reached.append(forward)
                todo.append(forward)
    return reached


def _behind(forward: Forward, forwards: Sequence[Forward], is_local: IsLocal) -> list[Forward]:
    """The forwards that the target's connections come to."""
    target = forward.target
    return [
        each
        for each in forwards
        if (each.listen.port, each.protocol) == (target.port, forward.protocol)
        and any(_takes(each.listen, packed, is_local) for packed in _addresses(target))
    ]


def _addresses(target: Endpoint) -> list[bytes]:
    host = target.host.partition("%")[0]
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, 6.3
        return [*_LOOPBACK.values()]
    if target.path or target.container or target.is_name:
        return []
    packed = _packed(host)
    return [packed if any(packed) else _LOOPBACK[len(packed)]]  # connect(2) to 0.0.0.0 or ::


def _takes(listen: Endpoint, packed: bytes, is_local: IsLocal) -> bool:
    own = _packed(listen.host.partition("%")[0])
    if any(own):
        return own == packed
    return (len(own) == 16 or len(packed) == 4) and (is_loopback(packed) or is_local(packed))


def _packed(host: str) -> bytes:
    packed = ipaddress.ip_address(host).packed
    return packed[12:] if packed.startswith(MAPPED_PREFIX) and len(packed) == 16 else packed
