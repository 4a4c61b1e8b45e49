"""What the network of this namespace looks like: devices, addresses, routes, listening sockets.

Reads only, all of it by netlink(7), so it needs no program and no rights.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass

from v6fwd.model import IPNetwork, Protocol, ip_text
from v6fwd.netns.netlink import Netlink, SockDiag
from v6fwd.netns.netlink_format import read_attributes, read_number

_NEW_LINK, _GET_LINK = 16, 18  # linux/rtnetlink.h
_NEW_ADDRESS, _GET_ADDRESS = 20, 22
_NEW_ROUTE, _GET_ROUTE = 24, 26
_SOCKETS_BY_FAMILY = 20  # linux/sock_diag.h
_NEW_RULE, _GET_RULE = 32, 34
_UP, _POINT_TO_POINT, _RUNNING, _NO_ARP = 0x1, 0x10, 0x40, 0x80  # net/if.h
_UNICAST = 1  # RTN_UNICAST
_REFUSING = {6: "blackhole", 7: "unreachable", 8: "prohibit"}  # RTN_*
_KERNEL = 2  # RTPROT_KERNEL
_MAIN_TABLE = 254
_KERNELS_TABLES = (253, 254, 255)
_PERMANENT = 0x80  # IFA_F_PERMANENT: not by router advertisement
_TEMPORARY, _OPTIMISTIC, _DAD_FAILED, _DEPRECATED, _TENTATIVE = 0x01, 0x04, 0x08, 0x20, 0x40
_ETHERNET = 1  # ARPHRD_ETHER
_LISTEN, _CLOSE = 10, 7  # net/tcp_states.h
_STATE = {Protocol.TCP: _LISTEN, Protocol.UDP: _CLOSE}
_NUMBER = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP}


@dataclass(frozen=True, slots=True)
class Device:
    """A network device. `kind` is the driver's ("bridge", "veth"), "" for hardware and `lo`."""

    index: int
    name: str
    kind: str = ""
    master: int = 0
    is_up: bool = True
    has_carrier: bool = True
    mtu: int = 1500
    has_neighbours: bool = True
    """Whether addresses on its link are resolved, as on Ethernet."""
    no_arp: bool = False
    """The switch that turns that off (ip-link(8), `arp off`)."""


@dataclass(frozen=True, slots=True)
class DeviceAddress:
    """An address of a device, and the network that its prefix length makes."""

    device: str
    address: str
    length: int
    is_global: bool = True
    is_permanent: bool = True
    is_duplicate: bool = False
    is_tentative: bool = False
    is_deprecated: bool = False
    is_temporary: bool = False

    @property
    def network(self) -> IPNetwork:
        """What is on the link."""
        return ipaddress.ip_network(f"{self.address}/{self.length}", strict=False)

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"


@dataclass(frozen=True, slots=True)
class Route:
    """A route; `gateway` is "" for a network on the link, `table` 0 for the main table.

    `refuses` is "blackhole", "unreachable" or "prohibit" where packets are not to go anywhere.
    """

    network: IPNetwork
    device: str
    gateway: str = ""
    refuses: str = ""
    table: int = 0

    def __str__(self) -> str:
        if self.refuses:
            table = f" table {self.table}" if self.table else ""
            return f"{self.refuses} {self.network}{table}"
        via = f" via {self.gateway}" if self.gateway else ""
        return f"{self.network}{via} dev {self.device}"


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """A rule of policy routing: to which table it leads, or that it refuses (see Route)."""

    version: int
    priority: int
    table: int = 0
    refuses: str = ""


@dataclass(frozen=True, slots=True)
class Listening:
    """A socket that takes connections or first datagrams; `inode` tells whose it is."""

    protocol: Protocol
    host: str
    port: int
    v6_only: bool
    inode: int
    waiting: int = 0
    """Connections that nobody has accepted yet (TCP)."""
    backlog: int = 1
    """How many may wait."""

    @property
    def is_any(self) -> bool:
        """Whether it takes what comes to any address of its families."""
        return self.host in ("::", "0.0.0.0")

    @property
    def families(self) -> frozenset[int]:
        """4, 6 or both."""
        if ":" not in self.host:
            return frozenset((4,))
        return frozenset((6,)) if self.v6_only or self.host != "::" else frozenset((4, 6))


class View(Netlink):
    """Asks about the namespace that the thread is in. Every call raises OSError."""

    def devices(self) -> list[Device]:
        """All devices."""
        found = []
        for body in self._dump(_GET_LINK, bytes(16), _NEW_LINK):
            index, flags = struct.unpack_from("=iI", body, 4)
            attributes = read_attributes(body[16:])
            info = read_attributes(attributes.get(18, b""))
            found.append(
                Device(
                    index,
                    _text(attributes.get(3)),
                    _text(info.get(1)),
                    read_number(attributes.get(10)),
                    bool(flags & _UP),
                    bool(flags & _RUNNING),
                    read_number(attributes.get(4)),
                    struct.unpack_from("=H", body, 2)[0] == _ETHERNET
                    and not flags & _POINT_TO_POINT,
                    bool(flags & _NO_ARP),
                )
            )
        return found

    def device_addresses(self) -> list[DeviceAddress]:
        """All addresses but those of `lo`."""
        names = {device.index: device.name for device in self.devices()}
        found = []
        for body in self._dump(_GET_ADDRESS, bytes(8), _NEW_ADDRESS):
            length, flags, scope = body[1], body[2], body[3]
            name = names.get(read_number(body[4:8]), "")
            attributes = read_attributes(body[8:])
            packed = attributes.get(2) or attributes.get(1)
            flags |= read_number(attributes.get(8))
            if packed and name not in ("", "lo"):
                found.append(
                    DeviceAddress(
                        name,
                        ip_text(packed),
                        length,
                        scope == 0,
                        bool(flags & _PERMANENT),
                        bool(flags & _DAD_FAILED),
                        flags & (_TENTATIVE | _OPTIMISTIC) == _TENTATIVE,
                        bool(flags & _DEPRECATED),
                        # of IPv4 the same bit is IFA_F_SECONDARY
                        bool(flags & _TEMPORARY and body[0] == socket.AF_INET6),
                    )
                )
        return found

    def rules(self) -> list[RoutingRule]:
        """The rules of policy routing, without the kernel's own."""
        found = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for body in self._dump(_GET_RULE, struct.pack("=B11x", family), _NEW_RULE):
                attributes = read_attributes(body[12:])
                table = read_number(attributes.get(15)) or body[4]
                version = 4 if family == socket.AF_INET else 6
                priority = read_number(attributes.get(6))
                if table not in _KERNELS_TABLES:
                    refuses = _REFUSING.get(body[7], "")
                    found.append(RoutingRule(version, priority, table, refuses))
        return found

    def routes(self) -> list[Route]:
        """The routes of the main table, and refusals of tables that rules lead to.

        Without the kernel's own refusals.
        """
        tables = {rule.table for rule in self.rules()}
        names = {device.index: device.name for device in self.devices()}
        found = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for body in self._dump(_GET_ROUTE, struct.pack("=B11x", family), _NEW_ROUTE):
                route = _route(body, names, tables)
                if route is not None:
                    found.append(route)
        return found


class ListeningSockets(SockDiag):
    """All sockets that take connections or first datagrams, of whatever port."""

    def all(self) -> list[Listening]:
        """TCP and UDP, IPv4 and IPv6. Raises OSError."""
        found = []
        for protocol in Protocol:
            for family in (socket.AF_INET, socket.AF_INET6):
                request = struct.pack(
                    "=BBBxI48x", family, _NUMBER[protocol], 0, 1 << _STATE[protocol]
                )
                with contextlib.suppress(FileNotFoundError):  # no IPv6 in this kernel
                    for body in self._dump(_SOCKETS_BY_FAMILY, request, _SOCKETS_BY_FAMILY):
                        found += _listening(protocol, body)
        return found


def _listening(protocol: Protocol, body: bytes) -> list[Listening]:
    port, remote_port = struct.unpack_from("!HH", body, 4)
    if remote_port or not port:
        return []
    size = 4 if body[0] == socket.AF_INET else 16
    v6_only = read_attributes(body[72:]).get(11, b"\0") != b"\0"  # INET_DIAG_SKV6ONLY
    inode = read_number(body[68:72])
    waiting, backlog = struct.unpack_from("=II", body, 56)
    address = ip_text(body[8 : 8 + size])
    return [Listening(protocol, address, port, v6_only, inode, waiting, backlog)]


def _route(body: bytes, names: dict[int, str], tables: Collection[int]) -> Route | None:
    family, length, kind = body[0], body[1], body[7]
    attributes = read_attributes(body[12:])
    table = read_number(attributes.get(15)) or body[4]
    hop = attributes.get(9, b"")  # RTA_MULTIPATH: of several next hops the first stands for all
    if len(hop) >= 8:
        attributes = {**attributes, 4: hop[4:8], **read_attributes(hop[8 : read_number(hop[:2])])}
    name = names.get(read_number(attributes.get(4)), "")
    refuses = _REFUSING.get(kind, "") if body[5] != _KERNEL else ""
    if table != _MAIN_TABLE and not (refuses and table in tables):
        return None
    if not (refuses or (kind == _UNICAST and name not in ("", "lo"))):
        return None
    size = 4 if family == socket.AF_INET else 16
    packed = attributes.get(1, bytes(size))
    gateway = attributes.get(5) or attributes.get(18, b"")[2:]  # RTA_VIA: of the other family
    network = ipaddress.ip_network((packed, length), strict=False)
    return Route(
        network,
        name,
        ip_text(gateway) if gateway else "",
        refuses,
        0 if table == _MAIN_TABLE else table,
    )


def _text(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode(errors="replace")
