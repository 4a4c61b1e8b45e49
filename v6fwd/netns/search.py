"""Finds the network namespace that has a target's address.

The host's route to the address leads to a device, most often a bridge. A container is behind one
of its ports: a veth pair, of which the kernel tells where the other end is (IFLA_LINK, its index;
IFLA_LINK_NETNSID, its namespace as ours numbers it). The address must be on that very end. What
a container gives itself elsewhere, on `lo` or on a device of its own making, proves nothing: it
would get the clients of another one.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

from v6fwd.errors import RelayError
from v6fwd.netns.handle import Handle, identity, own_identity
from v6fwd.netns.netlink import Netlink
from v6fwd.netns.netlink_format import attribute, read_attributes, read_number

NAMED = Path("/run/netns")
"""Where ip-netns(8) keeps its names."""
PROC = Path("/proc")

NEW_LINK, _GET_LINK = 16, 18  # linux/rtnetlink.h
OTHER_NAMESPACE = 37
"""IFLA_LINK_NETNSID (linux/if_link.h): where the other end of a device is."""
_NEW_ROUTE, _GET_ROUTE = 24, 26
_NEW_NSID, _GET_NSID = 88, 90


class Link(NamedTuple):
    """A device whose other end is in another namespace."""

    device: int
    """Its index."""
    master: int
    """The index of its bridge; 0 for none."""
    other_index: int
    other_namespace: int
    """As our namespace numbers it."""


class Links(Netlink):
    """The devices of our namespace, and the namespaces behind them. Every call raises OSError."""

    def links(self) -> list[Link]:
        """The devices that lead into other namespaces."""
        found = []
        for body in self._dump(_GET_LINK, bytes(16), NEW_LINK):
            attributes = read_attributes(body[16:])
            other, namespace = attributes.get(5), attributes.get(OTHER_NAMESPACE)
            if other and namespace:
                index = read_number(body[4:8])
                master = read_number(attributes.get(10))
                found.append(Link(index, master, read_number(other), read_number(namespace)))
        return found

    def device_to(self, packed: bytes) -> int:
        """The index of the device by which an address is reached."""
        family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
        body = struct.pack("=BB10x", family, 8 * len(packed)) + attribute(1, packed)
        return read_number(read_attributes(self._ask(_GET_ROUTE, body, _NEW_ROUTE)[12:]).get(4))

    def number_of(self, namespace: int) -> int:
        """The number that our namespace gives to an open one. Raises OSError."""
        body = bytes(4) + attribute(3, struct.pack("=i", namespace))  # NETNSA_FD
        return read_number(read_attributes(self._ask(_GET_NSID, body, _NEW_NSID)[4:]).get(1))

    def number_at(self, path: Path) -> int:
        """The same of the one at `path`. Raises OSError."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self.number_of(fd)
        finally:
            os.close(fd)


def processes_in(numbers: Container[int]) -> Iterator[tuple[int, int]]:
    """The processes in namespaces with these numbers, newest first: number and process id."""
    known: dict[str, int] = {}
    pids = sorted((int(name) for name in os.listdir(PROC) if name.isdecimal()), reverse=True)
    with contextlib.closing(Links()) as links:
        for pid in pids:
            path = PROC / str(pid) / "ns" / "net"
            with contextlib.suppress(OSError):
                this = identity(os.stat(path))
                if this not in known:
                    known[this] = links.number_at(path)
                if known[this] in numbers:
                    yield known[this], pid


def search(address: str) -> str:
    """The path of the namespace that has the address.

    Raises RelayError for none and for more than one. Where /proc hides other users' processes,
    their namespaces are not found.
    """
    packed = ipaddress.ip_address(address).packed
    with contextlib.closing(Links()) as links:
        behind = _behind(links, packed)
        paths = _namespaces() if behind else ()
        found = [path for path in paths if _has(links, path, packed, behind)]
    if not found:
        raise RelayError(f"{address} is in no network namespace behind a device of this host")
    if len(found) > 1:
        which = " and ".join(found[:2])
        raise RelayError(f"{address} is in more than one network namespace: {which}")
    return found[0]


def leads_to(path: str, address: str) -> bool:
    """Whether the namespace at `path` is one that `search` could find."""
    packed = ipaddress.ip_address(address).packed
    with contextlib.closing(Links()) as links:
        return _has(links, path, packed, _behind(links, packed))


def _behind(links: Links, packed: bytes) -> dict[int, set[int]]:
    """The devices behind the one that leads to an address: their indices, by namespace."""
    behind: dict[int, set[int]] = {}
    with contextlib.suppress(OSError):
        device = links.device_to(packed)
        for link in links.links():
            if device in (link.device, link.master):
                behind.setdefault(link.other_namespace, set()).add(link.other_index)
    return behind


def _namespaces() -> Iterator[str]:
    """Paths of all namespaces that are in use or have a name, each once; our own is none."""
    seen = {own_identity()}
    paths = [str(PROC / name / "ns" / "net") for name in os.listdir(PROC) if name.isdecimal()]
    with contextlib.suppress(OSError):
        paths += [str(path) for path in sorted(NAMED.iterdir())]
    for path in paths:
        with contextlib.suppress(OSError):
            this = identity(os.stat(path))
            if this not in seen:
                seen.add(this)
                yield path


def _has(links: Links, path: str, packed: bytes, behind: dict[int, set[int]]) -> bool:
    """Whether a device at the end of one of ours has the address, in the namespace at `path`."""
    with contextlib.suppress(OSError), contextlib.closing(Handle(path)) as handle:
        if handle.identity == own_identity():
            return False
        devices = behind.get(links.number_of(handle.fileno()), set())
        if devices:
            with handle.entered(), contextlib.closing(Netlink()) as netlink:
                return any(
                    index in devices and net.packed == packed
                    for index, net in netlink.addresses_by_device()
                )
    return False
