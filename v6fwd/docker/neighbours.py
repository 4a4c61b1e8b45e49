"""Drops packets on their way to a container that has not started.

Engine 20.10 has its rule for a port in place some milliseconds before it starts the port's proxy,
and so before we redirect. What a client sends meanwhile waits in the kernel for the container's
hardware address (arp(7)), and would be delivered as soon as that is known.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterable

from v6fwd.netns.netlink_format import attribute
from v6fwd.netns.search import Links

_DELETE_NEIGHBOUR = 29  # RTM_DELNEIGH, linux/rtnetlink.h
_DESTINATION = 1  # NDA_DST, linux/neighbour.h


class Neighbours(Links):
    """The hosts on our networks."""

    def forget(self, address: str) -> None:
        """Forget the hardware address of a host, and drop what waits for it. Raises OSError."""
        packed = ipaddress.IPv4Address(address).packed
        head = struct.pack("=BxxxiHBB", socket.AF_INET, self.device_to(packed), 0, 0, 0)
        with contextlib.suppress(FileNotFoundError):
            self._change(_DELETE_NEIGHBOUR, 0, head + attribute(_DESTINATION, packed))


def drop_waiting(addresses: Iterable[str]) -> None:
    """Drop the packets that wait for hosts with these IPv4 addresses. Raises OSError."""
    with contextlib.closing(Neighbours()) as neighbours:
        for address in addresses:
            neighbours.forget(address)
