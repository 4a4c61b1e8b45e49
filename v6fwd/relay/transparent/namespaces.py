"""The network namespaces that this process uses: PrivilegedOps without a helper process.

Each is entered once, and left when no forward needs it. A container that restarts gets a new
namespace under its old name. That is noticed when a connection fails or within LOOK_INTERVAL,
and the old one is let go, so that the kernel can remove it.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import itertools
import socket

from v6fwd.client_ip.destination import Destination, is_loopback
from v6fwd.errors import NotPermittedError, RelayError
from v6fwd.log import Log, attempt
from v6fwd.model import Address, Protocol, ip_text
from v6fwd.model.lean import NamedTuple
from v6fwd.netns.handle import Handle
from v6fwd.netns.netlink import Net
from v6fwd.netns.policy import MARK, NetnsPolicy, PseudoRoute, listening
from v6fwd.netns.search import search
from v6fwd.netns.udp_clients import UdpClients
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.transparent.bind import BindAddress, Make, bound_socket, may_bind, unbound_socket
from v6fwd.relay.transparent.privileged import (
    AheadRequest,
    MeshAhead,
    MeshSocket,
    NetnsView,
    SocketRequest,
)
from v6fwd.relay.transparent.pseudo_store import PseudoStore
from v6fwd.relay.transparent.sandboxes import Sandboxes

LOOK_INTERVAL = 1.0
"""Seconds between two looks whether the names still lead to the same namespaces."""
RETRY_INTERVAL = 0.2
"""Seconds between two attempts to enter one that cannot be entered, however many clients come."""


class Entered(NamedTuple):
    """A namespace in use."""

    epoch: int
    policy: NetnsPolicy
    prepared: dict[tuple[Destination, Protocol, int], tuple[int, int]]
    """Family and mark of connections to a destination whose rules are in place, by its port."""


class Namespaces:
    """Does in this process what needs privileges.

    Large because it is all of PrivilegedOps: namespaces by name, stores and sandboxes.
    """

    def __init__(self, reactor: Reactor, log: Log) -> None:
        self._reactor = reactor
        self._log = log
        self._users: dict[str, int] = {}
        self._entered: dict[str, Entered] = {}
        self._epochs = itertools.count(1)
        self._failed: dict[str, tuple[float, str]] = {}
        self._route: PseudoRoute | None = None
        self._stores: dict[str, PseudoStore] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._sandboxes = Sandboxes()

    # -- PrivilegedOps --

    def find(self, address: str) -> None:
        search(address)

    def join(self, netns: str) -> None:
        self._users[netns] = self._users.get(netns, 0) + 1
        if self._timer is None:
            self._timer = self._reactor.loop.call_later(LOOK_INTERVAL, self._look)

    def leave(self, netns: str) -> None:
        self._users[netns] -= 1
        if not self._users[netns]:
            del self._users[netns]
            self._drop(netns)

    def try_out(self, netns: str, target: bytes, port: int) -> None:
        policy = self._enter(netns, target).policy
        policy.accept_loopback(socket.AF_INET, port)
        if not may_bind(functools.partial(_socket_in, policy.namespace)):
            raise NotPermittedError(
                f"cannot take clients' addresses in network namespace {netns}: needs CAP_NET_RAW"
            )

    def look(self, netns: str, target: bytes, protocol: Protocol, port: int) -> NetnsView:
        self._check(netns)
        entered = self._enter(netns, target)
        restored = entered.policy.restore()
        if restored:
            text = f"somebody removed rules or routes of v6fwd from network namespace {netns}"
            self._log.warning("netns-restored", f"{text}: {restored} put back", netns=netns)
        found = listening(entered.policy, protocol, port)
        return NetnsView(entered.epoch, tuple(entered.policy.addresses), tuple(found))

    def bound_socket(self, request: SocketRequest) -> socket.SocketType:
        entered, client = self._entered.get(request.netns), request.client
        if entered is None or entered.epoch != request.epoch:
            raise OSError(errno.ECONNREFUSED, "")
        family, mark = _prepare(entered, request.destination, request.protocol, request.port)
        make = functools.partial(_socket_in, entered.policy.namespace)
        if request.protocol is Protocol.UDP and not request.destination.is_pseudo:
            return _udp_socket(make, family, client, entered.policy.udp_clients)
        address = BindAddress(client.host, client.port, mark=mark)
        return bound_socket(make, family, request.protocol, address)

    def sockets_ahead(self, request: AheadRequest) -> list[socket.SocketType]:
        """Make TCP sockets that are bound later. Raises RelayError and OSError."""
        netns, epoch, destination, port, number = request
        entered = self._entered.get(netns)
        if entered is None or entered.epoch != epoch:
            raise OSError(errno.ECONNREFUSED, "")
        family, mark = _prepare(entered, destination, Protocol.TCP, port)
        make = functools.partial(_socket_in, entered.policy.namespace)
        return [unbound_socket(make, family, mark) for _ in range(number)]

    def mesh_socket(self, request: MeshSocket) -> socket.SocketType:
        return self._sandboxes.connected(request)

    def mesh_ahead(self, request: MeshAhead) -> list[socket.SocketType]:
        """Make TCP sockets that are connected later. Raises RelayError and OSError."""
        return self._sandboxes.sockets_ahead(request.netns, request.number)

    def client_left(self, netns: str, epoch: int, client: Address) -> None:
        entered = self._entered.get(netns)
        if entered is not None and entered.epoch == epoch:
            entered.policy.udp_clients.remove(client)

    def store(self, path: str) -> PseudoStore:
        found = self._stores.get(path)
        if found is None:
            found = self._stores[path] = PseudoStore(path, tell=self._tell_set_aside)
            found.write_seen_from(self._reactor.loop)
        return found

    def _tell_set_aside(self, text: str) -> None:
        self._log.warning("pseudo-store", text)

    def own_pseudo_net(self) -> None:
        if self._route is None:
            self._route = PseudoRoute()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for name in list(self._entered):
            attempt(self._drop, name)
        if self._route is not None:
            attempt(self._route.close)
            self._route = None
        self._sandboxes.close()
        for store in self._stores.values():
            attempt(store.close)
        self._stores.clear()

    # -- namespaces by name --

    def addresses_of(self, netns: str) -> tuple[Net, ...]:
        """The addresses of a namespace in use."""
        entered = self._entered.get(netns)
        return tuple(entered.policy.addresses) if entered else ()

    def policy(self, name: str) -> NetnsPolicy:
        """The namespace in use under this name. Raises RelayError."""
        return self._entered_by(name).policy

    def _entered_by(self, name: str) -> Entered:
        """The namespace, entered. Raises RelayError where that cannot be."""
        found = self._entered.get(name)
        if found is not None:
            return found
        now = self._reactor.clock()
        since, why = self._failed.get(name, (float("-inf"), ""))
        if now - since < RETRY_INTERVAL:
            raise RelayError(why)
        try:
            found = Entered(next(self._epochs), NetnsPolicy(name), {})
        except RelayError as error:
            self._failed[name] = (now, str(error))
            raise
        self._entered[name] = found
        if self._failed.pop(name, None):
            self._log.info("netns", f"network namespace {name} is there", netns=name)
        return found

    def _enter(self, name: str, target: bytes) -> Entered:
        """The namespace that the name leads to now.

        Raises RelayError, also for another container's, where a process id was given away again.
        """
        entered = self._entered_by(name)
        if not is_loopback(target) and not entered.policy.has(target):
            addresses = ", ".join(ip_text(net.packed) for net in entered.policy.addresses)
            raise RelayError(
                f"{ip_text(target)} is no address of network namespace {name}, which has"
                f" {addresses or 'none'}"
            )
        return entered

    def _check(self, name: str) -> None:
        """Let go of the namespace if its name leads elsewhere by now."""
        entered = self._entered.get(name)
        if entered is not None and entered.policy.namespace.is_gone():
            self._drop(name)
            self._failed[name] = (float("-inf"), "gone")
            self._log.info("netns-gone", f"network namespace {name} has gone", netns=name)

    def _drop(self, name: str) -> None:
        entered = self._entered.pop(name, None)
        if entered is not None:
            entered.policy.close()

    def _look(self) -> None:
        for name in list(self._entered):
            attempt(self._check, name)
        self._timer = None
        if self._users:
            self._timer = self._reactor.loop.call_later(LOOK_INTERVAL, self._look)


def _prepare(
    entered: Entered, destination: Destination, protocol: Protocol, port: int
) -> tuple[int, int]:
    """Put the rules of a destination in place; gives family and mark of connections to it."""
    key = destination, protocol, port
    found = entered.prepared.get(key)
    if found is None:
        found = entered.prepared[key] = _accept(entered.policy, *key)
    return found


def _accept(
    policy: NetnsPolicy, destination: Destination, protocol: Protocol, port: int
) -> tuple[int, int]:
    family = socket.AF_INET if len(destination.address) == 4 else socket.AF_INET6
    if destination.is_pseudo:
        policy.accept_pseudo(protocol, port)
    elif protocol is Protocol.UDP:
        policy.accept_datagrams(family, port)
    elif destination.is_loopback:
        policy.accept_loopback(family, port)
    else:
        policy.accept_marked(family)
        return family, MARK
    return family, 0


def _udp_socket(make: Make, family: int, client: Address, clients: UdpClients) -> socket.SocketType:
    """A socket with a client's real address and a port at which answers stay inside."""
    for port in clients.ports(client):
        address = BindAddress(client.host, port, is_exact=True)
        try:
            sock = bound_socket(make, family, Protocol.UDP, address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            continue  # a server has the port, or another forward's session of this client
        try:
            clients.add(client._replace(port=port))
        except BaseException:
            sock.close()
            raise
        return sock
    raise OSError(errno.EADDRNOTAVAIL, "")


def _socket_in(namespace: Handle, family: int, kind: int) -> socket.SocketType:
    namespace.enter()
    try:
        return socket.SocketType(family, kind, 0)
    finally:
        namespace.leave()
