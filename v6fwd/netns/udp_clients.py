"""Routes that keep a UDP server's answers to real clients' addresses inside its namespace.

A server may leave the source of its answers to the kernel, so what tells them from all else that
it sends is where they go: to a client's address *and port*. By the address alone, one datagram
with a forged source would take what the server sends to that host from its published port, as DNS
and NTP servers do. Rules match ports, routes match addresses: each client port in use has a rule,
which leads to a table of its own with a route for each client.

The kernel tries rules one after the other, some 10 ns each, for all that the container sends. So
there are SLOTS of them at most; a client that comes when none is free gets a port of POOL.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from v6fwd.client_ip.destination import V4_LOOPBACK, V6_LOOPBACK
from v6fwd.model import Address, Protocol
from v6fwd.netns.netlink import LocalRoute, Net, Netlink, Rule

SLOTS = 256
POOL = range(65_519, 65_535)
"""Ports that no program has for its own: what a container sends there is for our clients."""
CLIENT_TABLES = range(1 << 31, (1 << 31) + (1 << 22) * SLOTS)
"""SLOTS tables for each process id, so that processes leave each other's alone."""

_LAST = 65_535
"""The kernel takes no rule for this port (fib_rule_port_range_valid)."""
_SOURCES: dict[int, bytes] = {socket.AF_INET: V4_LOOPBACK, socket.AF_INET6: V6_LOOPBACK}


class UdpClients:
    """The clients of one process in one namespace."""

    def __init__(self, netlink: Netlink, priority: int) -> None:
        """Use a netlink socket of that namespace; rules get this priority."""
        self._netlink = netlink
        self._priority = priority
        self._first = CLIENT_TABLES[(os.getpid() % (1 << 22)) * SLOTS]
        self._servers: set[tuple[int, int]] = set()
        self._slots: dict[int, int] = {}
        self._clients: dict[int, set[bytes]] = {}

    def serve(self, family: int, port: int) -> None:
        """Let a server on `port` answer clients. Raises OSError."""
        if (family, port) not in self._servers:
            self._servers.add((family, port))
            for client_port in self._slots:
                self._netlink.add_rule(self._rule(family, port, client_port))

    def ports(self, client: Address) -> Iterator[int]:
        """The ports that a client's socket may have, its own first where there is a rule for it."""
        taken = len([port for port in self._slots if port not in POOL])
        has_room = taken < SLOTS - len(POOL) and client.port != _LAST
        if client.port in self._slots or has_room:
            yield client.port
        for port in POOL:
            if client.packed not in self._clients.get(port, ()):
                yield port

    def add(self, client: Address) -> None:
        """Keep answers to a client at this port inside. Raises OSError."""
        if client.port not in self._slots:
            self._open(client.port)
        self._netlink.add_route(self._route(client))
        self._clients[client.port].add(client.packed)

    def remove(self, client: Address) -> None:
        """The client's session has ended."""
        clients = self._clients.get(client.port, set())
        if client.packed not in clients:
            return
        clients.discard(client.packed)
        with contextlib.suppress(OSError):
            self._netlink.delete_route(self._route(client))
        if not clients:
            self._shut(client.port)

    def restore(self) -> int:
        """Put back rules and routes that somebody has removed; gives their number. Raises OSError.

        They are many, so one of each kind and IP family stands for all: a device that goes down
        takes IPv6 routes along and leaves those of IPv4.
        """
        rules, routes = list(self._rules()), list(self._routes())
        one_rule = {rule.family: rule for rule in rules}
        one_route = {route.net.family: route for route in routes}
        count = sum(map(self._netlink.add_rule, one_rule.values()))
        count += sum(map(self._netlink.add_route, one_route.values()))
        if count:
            count += sum(map(self._netlink.add_rule, rules))
            count += sum(map(self._netlink.add_route, routes))
        return count

    def _rules(self) -> Iterator[Rule]:
        for port in self._slots:
            for family, server in self._servers:
                yield self._rule(family, server, port)

    def _routes(self) -> Iterator[LocalRoute]:
        for port, clients in self._clients.items():
            for packed in clients:
                yield self._route(Address(packed, port))

    def _open(self, port: int) -> None:
        used = set(self._slots.values())
        self._slots[port] = next(slot for slot in range(SLOTS) if slot not in used)
        self._clients[port] = set()
        try:
            for family, server in self._servers:
                self._netlink.add_rule(self._rule(family, server, port))
        except BaseException:
            self._shut(port)
            raise

    def _shut(self, port: int) -> None:
        for family, server in self._servers:
            with contextlib.suppress(OSError):
                self._netlink.delete_rule(self._rule(family, server, port))
        del self._slots[port], self._clients[port]

    def _rule(self, family: int, server: int, client_port: int) -> Rule:
        return Rule(
            family,
            self._priority,
            self._first + self._slots[client_port],
            protocol=Protocol.UDP,
            source_port=server,
            destination_port=client_port,
        )

    def _route(self, client: Address) -> LocalRoute:
        packed = client.packed
        source = _SOURCES[socket.AF_INET if len(packed) == 4 else socket.AF_INET6]
        table = self._first + self._slots[client.port]
        return LocalRoute(Net(packed, len(packed) * 8), table, source=source)
