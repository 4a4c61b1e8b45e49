"""A target that is a service of Swarm: tasks in the ingress network, dialled from ingress_sbox."""

from __future__ import annotations

import errno
import functools
import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Any

from v6fwd.client_ip.proxy.write import HeaderWriter
from v6fwd.errors import RelayError
from v6fwd.model import Address, Balance, Endpoint, Mesh, Protocol
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.sockets import tune
from v6fwd.relay.targets.addresses import SocketAddress
from v6fwd.relay.targets.balance import Balancer
from v6fwd.relay.transparent.privileged import MeshSocket, PrivilegedOps
from v6fwd.relay.udp_sockets import SESSION_BUFFER, set_buffer

GRACE = 1.5
"""Seconds that a flow whose tasks all failed waits for others: an update that stops the last task
first takes about one."""
CUT_GRACE = 5.0
"""The same where the namespace has no network any more: dockerd that stops takes it down, and its
restart makes another one."""


class MeshTarget:
    """The tasks of a service. They change in place: flows that wait find those of now.

    Large because it is what every flow asks: a Target.
    """

    is_name = True
    holds = False
    straight = b""
    found: Sequence[SocketAddress] = ()
    """None that is an address in this namespace: nothing leads back to a listener here."""

    def __init__(self, endpoint: Endpoint, reactor: Reactor, ops: PrivilegedOps) -> None:
        self._endpoint = endpoint
        self._reactor = reactor
        self._ops = ops
        self._mesh = Mesh()
        self._balancer = Balancer()
        self._waiting: list[Callable[[], None]] = []
        self._is_cut = False
        """Whether the namespace had no way to the tasks lately."""
        self.on_found: Callable[[], None] = _nothing

    def follow(self, mesh: Mesh) -> None:
        """Lead to these tasks from now on."""
        if mesh != self._mesh:
            self._mesh, self._is_cut = mesh, False
            self._reactor.loop.call_soon(self._tell)

    def refuse(self, addresses: Sequence[SocketAddress]) -> None:
        """Nothing leads back."""

    def __len__(self) -> int:
        return len(self._mesh.local) + len(self._mesh.remote)

    async def resolve(self) -> None:
        """The supervisor knows the tasks."""

    def resolve_later(self, then: Callable[[], None]) -> None:
        """The supervisor tells when there are tasks."""

    def renew(self, then: Callable[[], None]) -> bool:  # noqa: ARG002
        return False

    def refresh(self, then: Callable[[], None]) -> bool:
        """Wait for other tasks, for GRACE at most."""
        if not self._waiting:
            grace = CUT_GRACE if self._is_cut else GRACE
            self._reactor.loop.call_later(grace, self._tell)
        self._waiting.append(then)
        return True

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then()

    # -- connections --

    def order(self, source: Address | None = None) -> Sequence[SocketAddress]:
        client = source.packed if source is not None else b""
        tasks = self._balancer.order(self._mesh, self._reactor.clock(), client)
        return [(socket.AF_INET, (task, self._endpoint.port)) for task in tasks]

    def failed(self, address: SocketAddress) -> None:
        self._balancer.failed(address[1][0], self._reactor.clock())

    def answered(self, address: SocketAddress) -> None:
        self._balancer.answered(address[1][0])

    def dial(
        self,
        address: SocketAddress | None,
        source: Address | None = None,
        hop_limit: int = 0,
        *,
        speaks: bool = False,  # noqa: ARG002 - the handshake is under way already
    ) -> int:
        task = address or self._first(source)
        sock = self._connected(task, Protocol.TCP, hop_limit)
        try:
            tune(sock)
        except BaseException:
            sock.close()
            raise
        return self._counted(sock.detach(), task)

    def _counted(self, fd: int, address: SocketAddress) -> int:
        """Count the flow of a new descriptor, until that is closed, if the balance needs it."""
        if self._mesh.balance is Balance.LEAST_FLOWS:
            task = address[1][0]
            self._reactor.when_closed(fd, functools.partial(self._balancer.ended, task))
            self._balancer.began(task)
        return fd

    def _first(self, source: Address | None) -> SocketAddress:
        """The task of choice. Raises OSError where there is none."""
        if not len(self):
            raise OSError(0, "its service has no task now")
        return self.order(source)[0]

    def _connected(
        self, address: SocketAddress, protocol: Protocol, hop_limit: int = 0
    ) -> socket.SocketType:
        """A socket that connects to a task. Raises OSError."""
        _, (task, port) = address
        packed = ipaddress.IPv4Address(task).packed
        request = MeshSocket(self._mesh.netns, protocol, packed, port, hop_limit)
        try:
            return self._ops.mesh_socket(request)
        except RelayError as error:  # nobody made a namespace yet
            raise OSError(0, str(error)) from None
        except OSError as error:
            self._is_cut |= error.errno == errno.ENETUNREACH
            raise

    # -- datagrams --

    def connect_datagrams(self, source: Address) -> tuple[int, Any]:
        address = self._first(source)
        sock = self._connected(address, Protocol.UDP)
        try:
            set_buffer(sock, socket.SO_RCVBUF, SESSION_BUFFER)
        except BaseException:
            sock.close()
            raise
        return self._counted(sock.detach(), address), address

    def has_moved(self, address: Any) -> bool:
        """A session keeps its task as long as that is there and answers."""
        task = address[1][0]
        if task not in self._mesh.local and task not in self._mesh.remote:
            return len(self) > 0
        return len(self) > 1 and self._balancer.has_failed(task, self._reactor.clock())

    def was_refused(self, address: Any) -> None:
        self.failed(address)

    def was_silent(self, address: Any) -> None:
        """Some servers never answer."""

    def client_left(self, address: Any, source: Address) -> None:
        """Nothing was put in place for it."""

    def shown_instead(self, source: Address) -> str:  # noqa: ARG002
        return ""

    def header_writer(self, writer: HeaderWriter | None) -> HeaderWriter | None:
        return writer

    def close(self) -> None:
        """Lead nowhere: others may have the addresses now."""
        self._mesh = Mesh()


def _nothing() -> None:
    """No address is refused."""
