"""Routing rules, routes, addresses and listening sockets, by netlink(7).

Written out with `struct` because it is little: pyroute2 costs 18 MB of memory and 0.36 s at the
start, more than all the rest of a relay, and a UDP client's route is put in place on the data
path. A socket belongs to the network namespace in which it was made, wherever it is used.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Container, Iterable, Iterator

from v6fwd.model import Protocol
from v6fwd.model.lean import ClassVar, NamedTuple, dataclass
from v6fwd.netns.netlink_format import (
    HEADER,
    attribute,
    number_attribute,
    raise_error,
    read_attributes,
    read_messages,
    read_number,
)

LOOPBACK = 1
"""The index of `lo`, the first device of every namespace."""
OURS = 118
"""What marks rules and routes as ours (rtnetlink(7): `protocol`); above those that are taken."""

_ROUTE, _SOCK_DIAG = 0, 4  # linux/netlink.h
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _EXCL, _CREATE, _DUMP = 0x1, 0x4, 0x200, 0x400, 0x300
_NEW_ADDRESS, _DELETE_ADDRESS, _GET_ADDRESS = 20, 21, 22  # linux/rtnetlink.h
_NEW_ROUTE, _DELETE_ROUTE, _GET_ROUTE = 24, 25, 26
_NEW_RULE, _DELETE_RULE, _GET_RULE = 32, 33, 34
_SOCKETS_BY_FAMILY = 20  # linux/sock_diag.h
_LOCAL, _TO_TABLE = 2, 1  # RTN_LOCAL, FR_ACT_TO_TBL
_HOST_SCOPE = 254
_NODAD, _NOPREFIXROUTE = 0x2, 0x200  # linux/if_addr.h
_LISTEN, _CLOSE = 10, 7  # net/tcp_states.h; an unconnected UDP socket is in CLOSE
_IP_PROTO = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP}

_FIXED = {_ERROR: 4, _NEW_ADDRESS: 8, _NEW_ROUTE: 12, _NEW_RULE: 12}
"""Bytes of the fixed part of an answer, by its type (linux/rtnetlink.h)."""

RECEIVE = 64 * 1024
"""Bytes that are read at once: more than any message has."""


class Net(NamedTuple):
    """An address block: network bytes and the length of its prefix."""

    packed: bytes
    length: int

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return socket.AF_INET if len(self.packed) == 4 else socket.AF_INET6


@dataclass(frozen=True, slots=True)
class Rule:
    """A routing rule for what is sent from inside the namespace (`iif lo`)."""

    family: int
    priority: int
    table: int
    source: Net | None = None
    destination: Net | None = None
    mark: int = 0
    protocol: Protocol | None = None
    source_port: int = 0
    destination_port: int = 0


@dataclass(frozen=True, slots=True)
class LocalRoute:
    """`local NET dev lo table TABLE`: whatever is sent there arrives here.

    `source` is the address that a sender without one of its own gets; `metric` tells routes to
    the same net apart.
    """

    net: Net
    table: int
    source: bytes = b""
    metric: int = 0


class Bound(NamedTuple):
    """A socket that takes connections or datagrams: where, and whether IPv6 alone."""

    packed: bytes
    v6_only: bool


class Netlink:
    """A netlink socket of the namespace that the thread is in. Every call raises OSError."""

    _fixed: ClassVar[dict[int, int]] = _FIXED

    def __init__(self, protocol: int = _ROUTE) -> None:
        self._sequence = 0
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        self._socket.settimeout(5)  # the kernel answers within the call; never wait for ever

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def add_rule(self, rule: Rule) -> bool:
        """Put a rule in place; False if it is there already."""
        return self._add(_NEW_RULE, _rule_body(rule))

    def delete_rule(self, rule: Rule) -> None:
        """Remove a rule, if it is there."""
        with _tolerating(errno.ENOENT):
            self._change(_DELETE_RULE, 0, _rule_body(rule))

    def delete_rules(self, *tables: Container[int]) -> int:
        """Remove all rules of ours that lead to `tables`; gives how many there were."""
        count = 0
        for family in (socket.AF_INET, socket.AF_INET6):
            for body in self._dump(_GET_RULE, struct.pack("=B11x", family), _NEW_RULE):
                found = read_attributes(body[12:])
                if _is_in(found.get(15), tables) and found.get(21) == bytes([OURS]):
                    self._change(_DELETE_RULE, 0, body)
                    count += 1
        return count

    def add_route(self, route: LocalRoute) -> bool:
        """Put a route in place; False if it is there already."""
        return self._add(_NEW_ROUTE, _route_body(route))

    def delete_route(self, route: LocalRoute) -> None:
        """Remove a route, if it is there."""
        with _tolerating(errno.ESRCH):
            self._change(_DELETE_ROUTE, 0, _route_body(route))

    def delete_routes(self, *tables: Container[int]) -> int:
        """Remove all routes of ours in `tables`; gives how many there were."""
        count = 0
        for family in (socket.AF_INET, socket.AF_INET6):
            for body in self._dump(_GET_ROUTE, struct.pack("=B11x", family), _NEW_ROUTE):
                if body[5] == OURS and _is_in(read_attributes(body[12:]).get(15), tables):
                    with _tolerating(errno.ESRCH):
                        self._change(_DELETE_ROUTE, 0, body)
                    count += 1
        return count

    def add_loopback_address(self, net: Net) -> bool:
        """Give `lo` an address, and no route; False if it has it already."""
        flags = number_attribute(8, _NODAD | _NOPREFIXROUTE)
        return self._add(_NEW_ADDRESS, _address_body(net) + flags)

    def delete_loopback_address(self, net: Net) -> None:
        """Take an address from `lo`, if it has it."""
        with _tolerating(errno.EADDRNOTAVAIL):
            self._change(_DELETE_ADDRESS, 0, _address_body(net))

    def addresses(self) -> list[Net]:
        """The addresses of all devices, with their nets' lengths; not those of `lo`."""
        return [net for _, net in self.addresses_by_device()]

    def addresses_by_device(self) -> list[tuple[int, Net]]:
        """The same, each with the index of its device."""
        found = []
        for body in self._dump(_GET_ADDRESS, bytes(8), _NEW_ADDRESS):
            length, index = body[1], read_number(body[4:8])
            attributes = read_attributes(body[8:])
            packed = attributes.get(2) or attributes.get(1)  # IFA_LOCAL, else IFA_ADDRESS
            if packed and index != LOOPBACK:
                found.append((index, Net(packed, length)))
        return found

    def is_local(self, packed: bytes, device: int = 0) -> bool:
        """Whether an address is one of the namespace's own; `device` for a link-local one."""
        try:
            return self._route(packed, device)[7] == _LOCAL
        except OSError as error:
            if error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES):
                raise
            return False  # a route that leads nowhere

    def device_to(self, packed: bytes) -> int:
        """The index of the device by which an address is reached; 0 for none. Raises OSError."""
        return read_number(read_attributes(self._route(packed)[12:]).get(4))  # RTA_OIF

    def _route(self, packed: bytes, device: int = 0) -> bytes:
        """The route to an address. Raises OSError."""
        family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
        body = struct.pack("=BB10x", family, 8 * len(packed)) + attribute(1, packed)
        if device:
            body += number_attribute(4, device)
        return self._ask(_GET_ROUTE, body, _NEW_ROUTE)

    def _add(self, kind: int, body: bytes) -> bool:
        try:
            self._change(kind, _CREATE | _EXCL, body)
        except FileExistsError:
            return False
        return True

    def _change(self, kind: int, flags: int, body: bytes) -> None:
        self._send(kind, _REQUEST | _ACK | flags, body)
        for answer, content in self._answers():
            if answer == _ERROR:
                raise_error(content)
                return

    def _dump(self, kind: int, body: bytes, wanted: int) -> list[bytes]:
        self._send(kind, _REQUEST | _DUMP, body)
        found = []
        for answer, content in self._answers():
            if answer == _DONE:
                break
            if answer == _ERROR:
                raise_error(content)
            elif answer == wanted:
                found.append(content)
        return found

    def _ask(self, kind: int, body: bytes, wanted: int) -> bytes:
        """The one message that answers a question."""
        self._send(kind, _REQUEST, body)
        for answer, content in self._answers():
            if answer == _ERROR:
                raise_error(content)
            if answer == wanted:
                return content
        raise AssertionError("answers end only when nobody asks for more")

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        size = HEADER.size + len(body)
        self._socket.send(HEADER.pack(size, kind, flags, self._sequence, 0) + body)

    def _answers(self) -> Iterator[tuple[int, bytes]]:
        """The messages that answer the request sent last, for as long as they are asked for."""
        while True:
            for kind, sequence, content in read_messages(self._socket.recv(RECEIVE)):
                if sequence == self._sequence:
                    if len(content) < self._fixed.get(kind, 0):
                        raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
                    yield kind, content


class SockDiag(Netlink):
    """Asks who listens: a dump of the listening sockets alone, however many others there are."""

    _fixed: ClassVar[dict[int, int]] = {_ERROR: 4, _SOCKETS_BY_FAMILY: 72}  # linux/inet_diag.h

    def __init__(self) -> None:
        super().__init__(_SOCK_DIAG)

    def listening(self, protocol: Protocol, port: int) -> list[Bound]:
        """The sockets that take connections or first datagrams on a port."""
        found = []
        state = _LISTEN if protocol is Protocol.TCP else _CLOSE
        for family in (socket.AF_INET, socket.AF_INET6):
            # inet_diag_req_v2: family, protocol, extensions, pad, states, and a socket id of which
            # the kernel compares the source port: a container may have 60,000 other listeners.
            head = struct.pack("=BBBxI", family, _IP_PROTO[protocol], 0, 1 << state)
            request = head + struct.pack("!H46x", port)
            with _tolerating(errno.ENOENT):  # no IPv6 in this kernel
                for body in self._dump(_SOCKETS_BY_FAMILY, request, _SOCKETS_BY_FAMILY):
                    found += _bound(body, port)
        return found


def _bound(body: bytes, port: int) -> list[Bound]:
    """What an inet_diag_msg tells: nothing where it is about another port."""
    source_port, remote_port = struct.unpack_from("!HH", body, 4)
    if source_port != port or remote_port:
        return []
    size = 4 if body[0] == socket.AF_INET else 16
    v6_only = read_attributes(body[72:]).get(11, b"\0") != b"\0"  # INET_DIAG_SKV6ONLY
    return [Bound(body[8 : 8 + size], v6_only)]


def _address_body(net: Net) -> bytes:
    body = struct.pack("=BBBBI", net.family, net.length, 0, _HOST_SCOPE, LOOPBACK)
    return body + attribute(1, net.packed) + attribute(2, net.packed)


def _rule_body(rule: Rule) -> bytes:
    source, destination = rule.source, rule.destination
    body = struct.pack(
        "=BBBBBBBBI",
        rule.family,
        destination.length if destination else 0,
        source.length if source else 0,
        0, 0, 0, 0, _TO_TABLE, 0,
    )  # fmt: skip
    body += number_attribute(15, rule.table)
    body += number_attribute(6, rule.priority)
    body += attribute(3, b"lo\0") + attribute(21, bytes([OURS]))
    if destination:
        body += attribute(1, destination.packed)
    if source:
        body += attribute(2, source.packed)
    if rule.mark:
        body += number_attribute(10, rule.mark) + attribute(16, b"\xff" * 4)
    if rule.protocol:
        body += attribute(22, bytes([_IP_PROTO[rule.protocol]]))
    if rule.source_port:
        body += attribute(23, struct.pack("=HH", rule.source_port, rule.source_port))
    if rule.destination_port:
        body += attribute(24, struct.pack("=HH", rule.destination_port, rule.destination_port))
    return body


def _route_body(route: LocalRoute) -> bytes:
    net = route.net
    body = struct.pack("=BBBBBBBBI", net.family, net.length, 0, 0, 0, OURS, _HOST_SCOPE, _LOCAL, 0)
    body += number_attribute(15, route.table)
    body += number_attribute(4, LOOPBACK)
    if net.length:
        body += attribute(1, net.packed)
    if route.source:
        body += attribute(7, route.source)
    if route.metric:
        body += number_attribute(6, route.metric)
    return body


def _is_in(table: bytes | None, tables: Iterable[Container[int]]) -> bool:
    return any(read_number(table) in each for each in tables)


@contextlib.contextmanager
def _tolerating(number: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != number:
            raise
