"""Rules and routes in a container's namespace that let a socket there have a client's address.

The target's answers must find that socket rather than leave by the container's network device.
Which packets those are depends on the destination (client_ip/destination.py):

    from ::1, 127.0.0.1   their source is a loopback address, which no packet that leaves can have
    to a pseudo IPv4      their destination is in 240.0.0.0/4, where no network is
    from the container's  they carry the mark of the connection that they belong to, since a
    own address, TCP      listener passes its SYN's mark on (tcp_fwmark_accept)
    UDP                   a server may leave the source of its answers to the kernel; so their
                          destination is a client with a session (`udp_clients`)

All but the marked ones must come from the target's port, too, and not only for good measure: to
connect(2) to an IPv6 address without a route, the kernel takes *any* source that it finds, in an
IPv4-only container ::1, and looks again. A rule for ::1 alone would connect such a program, which
is to learn that there is no IPv6, to the container itself.

Everything else goes the way that it always went. Nothing is put in place before it is needed.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from v6fwd.client_ip.destination import V4_LOOPBACK, V6_LOOPBACK
from v6fwd.client_ip.pseudo_ipv4 import PSEUDO_BITS, PSEUDO_NET
from v6fwd.errors import NotPermittedError, RelayError, reason
from v6fwd.model import Protocol
from v6fwd.netns.handle import own_identity
from v6fwd.netns.lease import OWN, Lease, leases_locked, undo_the_dead
from v6fwd.netns.namespace import Namespace
from v6fwd.netns.netlink import LocalRoute, Net, Netlink, Rule, SockDiag
from v6fwd.netns.udp_clients import CLIENT_TABLES, UdpClients

PRIORITY = 32
"""Of all our rules: after `local` (0), before those that a VPN in the container may have added."""
TABLE = 0x76366677
"""Everything is local. A table's number is free as long as nobody has the same: "v6fw"."""
PSEUDO_TABLE = TABLE + 1
"""240.0.0.0/4 is local."""
CLIENTS_TABLE = TABLE + 2
"""Held UDP clients in earlier versions; removed with the rest."""
MARK = TABLE
"""On connections to the container's own address."""
TABLES = frozenset((TABLE, PSEUDO_TABLE, CLIENTS_TABLE))
LOCAL_TABLE = 255
"""The kernel's table of what is local."""

PLACEHOLDER = Net(ipaddress.IPv6Address("fe80::76:3666:7764").packed, 128)
"""An address for `lo` that leads nowhere: where there is one but ::1, getaddrinfo(3) with
AI_ADDRCONFIG gives :: to a server that asks where to listen (RFC 3493, section 6.1). Of link scope,
so that nothing is ever sent from it; "v6fwd"."""

LO_IPV6 = "net/ipv6/conf/lo/disable_ipv6"
MARK_SYSCTLS = ("net/ipv4/tcp_fwmark_accept", "net/ipv4/fwmark_reflect")
"""The second is for the RST of a port where nobody listens."""

_PSEUDO = Net(PSEUDO_NET, PSEUDO_BITS)
_EVERYTHING: dict[int, Net] = {socket.AF_INET: Net(bytes(4), 0), socket.AF_INET6: Net(bytes(16), 0)}
_LOOPBACK_NETS: dict[int, Net] = {
    socket.AF_INET: Net(bytes((127, 0, 0, 0)), 8),
    socket.AF_INET6: Net(V6_LOOPBACK, 128),
}
_SOURCES: dict[int, bytes] = {socket.AF_INET: V4_LOOPBACK, socket.AF_INET6: V6_LOOPBACK}


class NetnsPolicy:
    """A namespace in use: the lease on it, the rules put there, and netlink sockets in it."""

    def __init__(self, name: str) -> None:
        """Take a lease, after cleaning up behind killed processes. Raises RelayError."""
        self.namespace = Namespace(name)
        self._done: set[Rule] = set()
        self._routes: set[LocalRoute] = set()
        self._addresses_added: set[Net] = set()
        self._sysctls: dict[str, str] = {}
        try:
            with leases_locked():
                undo_the_dead(_undo_by_name)
                with self.namespace.entered():
                    self._netlink, self._diag = Netlink(), SockDiag()
                    self.addresses = self._netlink.addresses()
                self._lease = Lease(self.namespace.identity, name)
        except (OSError, RelayError) as error:
            self.namespace.close()
            raise _cannot(f"use network namespace {name}", "CAP_SYS_ADMIN", error) from None
        self.diag = self._diag
        self.udp_clients = UdpClients(self._netlink, PRIORITY)

    def close(self) -> None:
        """Give the lease back; the last process to do so undoes everything."""
        with contextlib.suppress(OSError, RelayError), leases_locked():
            self._lease.give_back(self._undo)
        self._netlink.close()
        self._diag.close()
        self.namespace.close()

    def has(self, packed: bytes) -> bool:
        """Whether an address is on one of its devices; asks again if not. Raises RelayError."""
        if packed not in {net.packed for net in self.addresses}:
            with self._naming():
                self.addresses = self._netlink.addresses()
        return packed in {net.packed for net in self.addresses}

    def _undo(self, sysctls: dict[str, str]) -> None:
        with self.namespace.entered():
            undo_rules(self._netlink, sysctls)

    # -- what a destination needs; each raises RelayError --

    def accept_loopback(self, family: int, port: int) -> None:
        """For TCP targets on a loopback address."""
        rule = Rule(family, PRIORITY, TABLE, _LOOPBACK_NETS[family], **_answers(Protocol.TCP, port))
        if rule not in self._done:
            with self._naming():
                if family == socket.AF_INET6:
                    self._switch_ipv6_on()
                self._add_everything(family)
                self._netlink.add_rule(rule)
            self._done.add(rule)

    def accept_pseudo(self, protocol: Protocol, port: int) -> None:
        """For clients with a pseudo IPv4 address."""
        answers = _answers(protocol, port)
        rule = Rule(socket.AF_INET, PRIORITY, PSEUDO_TABLE, destination=_PSEUDO, **answers)
        if rule not in self._done:
            with self._naming():
                # `source` is for UDP servers that leave it to the kernel
                self._add_route(LocalRoute(_PSEUDO, PSEUDO_TABLE, source=V4_LOOPBACK))
                self._netlink.add_rule(rule)
            self._done.add(rule)

    def accept_marked(self, family: int) -> None:
        """For connections to the container's own address."""
        rule = Rule(family, PRIORITY, TABLE, mark=MARK)
        if rule not in self._done:
            with self._naming():
                for sysctl in MARK_SYSCTLS:
                    self._set_sysctl(sysctl, "1")
                self._add_everything(family)
                self._netlink.add_rule(rule)
            self._done.add(rule)

    def accept_datagrams(self, family: int, port: int) -> None:
        """For the answers of a UDP server to clients whose real addresses it knows."""
        with self._naming():
            if family == socket.AF_INET6:
                self._switch_ipv6_on()
            self.udp_clients.serve(family, port)

    def keep_placeholder(self, changed: dict[str, str]) -> None:
        """Keep PLACEHOLDER as long as the lease; the sysctls `changed` for it go back then."""
        with self._naming(), self.namespace.entered():
            # once more: somebody may just have left, and undone it
            changed = _add_placeholder(self._netlink) | changed
        with self._naming(), leases_locked():
            for sysctl, value in changed.items():
                self._lease.remember(sysctl, value)

    def remove_placeholder(self) -> None:
        """Remove PLACEHOLDER, whoever else uses the namespace; IPv6 stays on. Raises RelayError."""
        with self._naming():
            self._netlink.delete_loopback_address(PLACEHOLDER)

    def restore(self) -> int:
        """Put back what somebody has removed; gives how much that was. Raises RelayError.

        `ip rule flush` and `ip link set lo down` are in many scripts of network managers.
        """
        with self._naming():
            count = self._restore_sysctls()
            count += sum(map(self._netlink.add_loopback_address, self._addresses_added))
            count += sum(map(self._netlink.add_route, self._routes))
            count += sum(map(self._netlink.add_rule, self._done))
            return count + self.udp_clients.restore()

    def _restore_sysctls(self) -> int:
        count = 0
        with self.namespace.entered():
            for sysctl, value in self._sysctls.items():
                if _read_sysctl(sysctl) != value:
                    _write_sysctl(sysctl, value)
                    count += 1
        return count

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """Turn what the kernel refuses into a RelayError."""
        try:
            yield
        except OSError as error:
            what = f"put rules into network namespace {self.namespace.name}"
            raise _cannot(what, "CAP_NET_ADMIN", error) from None

    def _add_everything(self, family: int) -> None:
        self._add_route(LocalRoute(_EVERYTHING[family], TABLE, source=_SOURCES[family]))

    def _add_route(self, route: LocalRoute) -> None:
        self._netlink.add_route(route)
        self._routes.add(route)

    def _switch_ipv6_on(self) -> None:
        """Docker switches it off in containers of IPv4 networks (20.10: on `lo` as well)."""
        if self._set_sysctl(LO_IPV6, "0"):
            address = Net(V6_LOOPBACK, 128)
            self._netlink.add_loopback_address(address)
            self._addresses_added.add(address)

    def _set_sysctl(self, sysctl: str, value: str) -> bool:
        """Set it and remember what it was; False where it was that already."""
        with self.namespace.entered():
            before = _read_sysctl(sysctl)
        self._sysctls[sysctl] = value
        if before == value:
            return False
        with leases_locked():
            self._lease.remember(sysctl, before)
        with self.namespace.entered():
            _write_sysctl(sysctl, value)
        return True


def add_placeholder(name: str) -> NetnsPolicy:
    """Give a namespace an IPv6 address for servers to find as they start. Raises RelayError.

    The address comes before the lease: servers may look for it in a few milliseconds, and other
    processes may hold the lock of the leases for longer.
    """
    namespace = Namespace(name)
    try:
        with namespace.entered(), contextlib.closing(Netlink()) as netlink:
            changed = _add_placeholder(netlink)
    except OSError as error:
        raise _cannot(
            f"add an address in network namespace {name}", "CAP_NET_ADMIN", error
        ) from None
    finally:
        namespace.close()
    policy = NetnsPolicy(name)
    try:
        policy.keep_placeholder(changed)
    except RelayError:
        policy.close()
        raise
    return policy


def _add_placeholder(netlink: Netlink) -> dict[str, str]:
    """Add PLACEHOLDER; gives the sysctls that were changed for it, with their values before."""
    before = _read_sysctl(LO_IPV6)
    if before != "0":
        _write_sysctl(LO_IPV6, "0")
        netlink.add_loopback_address(Net(V6_LOOPBACK, 128))
    netlink.add_loopback_address(PLACEHOLDER)
    return {} if before == "0" else {LO_IPV6: before}


class PseudoRoute:
    """`local 240.0.0.0/4 dev lo` in our own namespace: pseudo addresses are ours to speak from."""

    def __init__(self) -> None:
        """Put it in place. Raises RelayError."""
        try:
            with leases_locked():
                undo_the_dead(_undo_by_name)
                self._lease = Lease(own_identity(), OWN)
                self._netlink = Netlink()
                self._netlink.add_route(LocalRoute(_PSEUDO, LOCAL_TABLE))
        except OSError as error:
            raise _cannot("add the route local 240.0.0.0/4", "CAP_NET_ADMIN", error) from None

    def close(self) -> None:
        """Remove it, unless another process uses it."""
        with contextlib.suppress(OSError, RelayError), leases_locked():
            self._lease.give_back(lambda sysctls: undo_rules(self._netlink, sysctls))
        self._netlink.close()


def undo_rules(netlink: Netlink, sysctls: dict[str, str]) -> None:
    """Remove everything of ours from the namespace that the thread is in. Raises OSError."""
    netlink.delete_rules(TABLES, CLIENT_TABLES)
    netlink.delete_routes(TABLES, CLIENT_TABLES, {LOCAL_TABLE})
    netlink.delete_loopback_address(PLACEHOLDER)
    for sysctl, value in sysctls.items():
        if sysctl in (LO_IPV6, *MARK_SYSCTLS):  # a lease is a file, and files can be edited
            _write_sysctl(sysctl, value)


def _undo_by_name(name: str, sysctls: dict[str, str]) -> None:
    """Undo what a killed process left. A namespace that is gone needs nothing undone."""
    with contextlib.suppress(OSError, RelayError):
        if name == OWN:
            _undo_here(sysctls)
            return
        namespace = Namespace(name)
        try:
            with namespace.entered():
                _undo_here(sysctls)
        finally:
            namespace.close()


def _undo_here(sysctls: dict[str, str]) -> None:
    netlink = Netlink()
    try:
        undo_rules(netlink, sysctls)
    finally:
        netlink.close()


def listening(policy: NetnsPolicy, protocol: Protocol, port: int) -> list[tuple[bytes, bool]]:
    """The addresses listened on at a port, and whether for IPv6 alone. Raises OSError."""
    return [(bound.packed, bound.v6_only) for bound in policy.diag.listening(protocol, port)]


def _answers(protocol: Protocol, port: int) -> dict[str, Any]:
    """The part of a rule that matches packets that a server on a port sends."""
    return {"protocol": protocol, "source_port": port}


def _cannot(what: str, capability: str, error: Exception) -> RelayError:
    if isinstance(error, RelayError):
        return error
    assert isinstance(error, OSError)
    if error.errno == errno.EPERM:
        return NotPermittedError(f"cannot {what}: needs {capability}")
    return RelayError(f"cannot {what}: {reason(error)}")


def _read_sysctl(sysctl: str) -> str:
    return (Path("/proc/sys") / sysctl).read_text().strip()


def _write_sysctl(sysctl: str, value: str) -> None:
    (Path("/proc/sys") / sysctl).write_text(value)
