"""The addresses of one target: the order in which to try them, and those that failed lately."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from v6fwd.model.lean import Any

PASS_OVER = 30.0
"""Seconds for which an address that failed comes behind the others."""

SocketAddress = tuple[int, Any]
"""A family and a socket address of that family."""

_INET, _INET6 = struct.Struct("!H4s8x"), struct.Struct("!HI16s")
_NATIVE = struct.Struct("=H"), struct.Struct("=I")


class Addresses:
    """What the resolver gave last.

    Addresses of the resolver's first family are taken by turns. Those of another family follow:
    RFC 6724 has put them last for a reason. Addresses that failed lately come behind all others,
    but are tried if nothing else is left.
    """

    __slots__ = ("_answered", "_failed", "_refused", "_turn", "all", "found", "straight")

    def __init__(self) -> None:
        self.all: tuple[SocketAddress, ...] = ()
        """Those that may be used."""
        self.found: tuple[SocketAddress, ...] = ()
        """All, in the resolver's order."""
        self.straight = b""
        """The struct sockaddr of the only one of them; b"" where there are others, or none."""
        self._refused: frozenset[SocketAddress] = frozenset()
        self._turn = 0
        self._failed: dict[SocketAddress, float] = {}  # until when; the oldest failure first
        self._answered: dict[SocketAddress, float] = {}  # when, the last time

    def replace(self, found: Iterable[SocketAddress]) -> None:
        """Take another answer of the resolver. Failures of addresses that stay are kept."""
        self.found = tuple(dict.fromkeys(found))
        self.all = tuple(each for each in self.found if each not in self._refused)
        self.straight = raw_address(*self.all[0]) if len(self.all) == 1 else b""
        self._failed = {each: due for each, due in self._failed.items() if each in self.all}
        self._answered = {each: at for each, at in self._answered.items() if each in self.all}

    def refuse(self, addresses: Iterable[SocketAddress]) -> None:
        """Use all but these from now on."""
        self._refused = frozenset(addresses)
        self.replace(self.found)

    def order(self, now: float) -> list[SocketAddress]:
        """All addresses in the order in which a new flow tries them; the next flow's differs."""
        passed_over = self._passed_over(now)
        good = [each for each in self.all if each not in passed_over]
        first = [each for each in good if each[0] == good[0][0]]
        others = [each for each in good if each[0] != good[0][0]]
        self._turn += 1
        start = self._turn % len(first) if first else 0
        return [*first[start:], *first[:start], *others, *passed_over]

    def failed(self, address: SocketAddress, now: float) -> None:
        """Pass over an address for a while. Where all have failed, the others get a chance."""
        if address not in self.all:
            return
        self._failed.pop(address, None)
        if len(self._passed_over(now)) >= len(self.all) - 1:
            self._failed.clear()
        self._failed[address] = now + PASS_OVER

    def answered(self, address: SocketAddress, now: float) -> None:
        """An address works: it has its turn again."""
        self._failed.pop(address, None)
        if address in self.all:
            self._answered[address] = now

    def has_answered_elsewhere(self, address: SocketAddress, now: float) -> bool:
        """Whether another address than this one has answered lately."""
        return any(now - at <= PASS_OVER for each, at in self._answered.items() if each != address)

    def is_worse(self, address: SocketAddress, now: float) -> bool:
        """Whether there is a better address than this one."""
        if address not in self.all:
            return bool(self.all)
        return len(self.all) > 1 and address in self._passed_over(now)

    def _passed_over(self, now: float) -> dict[SocketAddress, float]:
        self._failed = {each: due for each, due in self._failed.items() if due > now}
        return self._failed


def raw_address(family: int, sockaddr: Any) -> bytes:
    """The struct sockaddr of an IP address; b"" for other families."""
    start = _NATIVE[0].pack(family)
    if family == socket.AF_INET:
        return start + _INET.pack(sockaddr[1], socket.inet_pton(family, sockaddr[0]))
    if family == socket.AF_INET6:
        host, port, flow, scope = sockaddr
        packed = socket.inet_pton(family, host.partition("%")[0])
        return start + _INET6.pack(port, flow, packed) + _NATIVE[1].pack(scope)
    return b""
