"""A target that is a service of Swarm: tasks in the ingress network, dialled from ingress_sbox."""

from __future__ import annotations

import errno
import functools
import itertools
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace

from v6fwd.client_ip.proxy.write import HeaderWriter
from v6fwd.errors import RelayError
from v6fwd.model import Address, Balance, Endpoint, Mesh, Protocol
from v6fwd.model.lean import Any, NamedTuple
from v6fwd.relay.reactor import Reactor
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
AGAIN = 0.25
"""Seconds until such a flow tries all again, changes or not: a server may just be starting."""


class TaskAddress(NamedTuple):
    """A place to connect to from ingress_sbox, as it was when a flow chose it."""

    host: str
    port: int
    namespace: str
    """The identity of ingress_sbox: in another one the same address is another attempt."""
    is_hop: bool = False


class MeshTarget:
    """The tasks of a service. They change in place: flows that wait find those of now.

    Large because it is what every flow asks: a Target.
    """

    is_name = True
    holds = True
    straight = b""
    found: Sequence[SocketAddress] = ()
    """None that is an address in this namespace: nothing leads back to a listener here."""

    def __init__(
        self,
        endpoint: Endpoint,
        reactor: Reactor,
        ops: PrivilegedOps,
        sought: Callable[[], None],
    ) -> None:
        """`sought` is called when a flow looks for other tasks than those that are known."""
        self._sought = sought
        self._endpoint = endpoint
        self._reactor = reactor
        self._ops = ops
        self._mesh = self._nodes = Mesh()
        """What flows may lead to: tasks, and for the hop the nodes in place of these."""
        self._tasks_at: dict[str, SocketAddress] = {}
        self._hops_at: dict[str, SocketAddress] = {}
        self._balancer, self._hop_balancer = Balancer(), Balancer()
        self._waiting: dict[int, Callable[[], None]] = {}
        self._waited = itertools.count()
        self._is_cut = False
        """Whether the namespace had no way to the tasks lately."""
        self.on_found: Callable[[], None] = _nothing

    @property
    def live(self) -> MeshTarget:
        return self

    def follow(self, mesh: Mesh) -> None:
        """Lead to these tasks from now on."""
        if mesh != self._mesh:
            self._mesh, self._is_cut = mesh, False
            self._nodes = replace(mesh, local=(), remote=mesh.hops)
            port, hop_port = self._endpoint.port, mesh.hop_port
            tasks = (*mesh.local, *mesh.remote)
            self._tasks_at = {
                host: _address(TaskAddress(host, port, mesh.identity)) for host in tasks
            }
            self._hops_at = {
                host: _address(TaskAddress(host, hop_port, mesh.identity, is_hop=True))
                for host in mesh.hops
            }
            self._reactor.loop.call_soon(self._tell)

    def refuse(self, addresses: Sequence[SocketAddress]) -> None:
        """Nothing leads back."""

    def __len__(self) -> int:
        return len(self._mesh.local) + len(self._mesh.remote) + len(self._mesh.hops)

    async def resolve(self) -> None:
        """The supervisor knows the tasks."""

    def resolve_later(self, then: Callable[[], None]) -> None:
        """The supervisor tells when there are tasks."""

    def renew(self, then: Callable[[], None]) -> bool:  # noqa: ARG002
        return False

    def refresh(self, then: Callable[[], None]) -> bool:  # noqa: ARG002 - see `others`
        return False

    def others(self, then: Callable[[], None], since: float) -> bool:
        self._sought()
        if self._reactor.clock() - since >= (CUT_GRACE if self._is_cut else GRACE):
            return False
        number = next(self._waited)
        self._waiting[number] = then
        self._reactor.loop.call_later(AGAIN, self._tell_one, number)
        return True

    def _tell_one(self, number: int) -> None:
        if (then := self._waiting.pop(number, None)) is not None:
            then()

    def _tell(self) -> None:
        for number in list(self._waiting):
            self._tell_one(number)

    def is_hop(self, address: SocketAddress) -> bool:
        at: TaskAddress = address[1]
        return at.is_hop

    # -- connections --

    def order(self, source: Address | None = None) -> Sequence[SocketAddress]:
        """Tasks, then nodes that have some; behind them those of both that failed lately."""
        mesh, now = self._mesh, self._reactor.clock()
        client = source.packed if source is not None else b""
        tasks_at, hops_at = self._tasks_at, self._hops_at
        found = [tasks_at[task] for task in self._balancer.order(mesh, now, client)]
        if mesh.hops:
            hosts = self._hop_balancer.order(self._nodes, now, client)
            found += [hops_at[host] for host in hosts]
            if self._balancer.has_failures(now) or self._hop_balancer.has_failures(now):
                found.sort(key=lambda each: self._has_failed(each[1], now))
        return found

    def _balancer_of(self, at: TaskAddress) -> Balancer:
        return self._hop_balancer if at.is_hop else self._balancer

    def _has_failed(self, at: TaskAddress, now: float) -> bool:
        return self._balancer_of(at).has_failed(at.host, now)

    def failed(self, address: SocketAddress) -> None:
        self._balancer_of(address[1]).failed(address[1].host, self._reactor.clock())
        self._sought()

    def answered(self, address: SocketAddress) -> None:
        self._balancer_of(address[1]).answered(address[1].host)

    def dial(
        self,
        address: SocketAddress | None,
        source: Address | None = None,
        hop_limit: int = 0,
        *,
        speaks: bool = False,
    ) -> int:
        task = address or self._first(source)
        sock = self._connected(task, Protocol.TCP, hop_limit, speaks=speaks)
        return self._counted(sock.detach(), task)

    def _counted(self, fd: int, address: SocketAddress) -> int:
        """Count the flow of a new descriptor, until that is closed, if the balance needs it."""
        if self._mesh.balance is Balance.LEAST_FLOWS:
            at: TaskAddress = address[1]
            balancer = self._balancer_of(at)
            self._reactor.when_closed(fd, functools.partial(balancer.ended, at.host))
            balancer.began(at.host)
        return fd

    def _first(self, source: Address | None) -> SocketAddress:
        """The task of choice. Raises OSError where there is none."""
        if not len(self):
            raise OSError(0, "its service has no task now")
        return self.order(source)[0]

    def _connected(
        self,
        address: SocketAddress,
        protocol: Protocol,
        hop_limit: int = 0,
        *,
        speaks: bool = False,
    ) -> socket.SocketType:
        """A socket that connects to a task. Raises OSError."""
        at: TaskAddress = address[1]
        packed = socket.inet_pton(socket.AF_INET, at.host)
        which = self._mesh.netns, protocol, packed, at.port
        request = MeshSocket(*which, hop_limit, self._mesh.identity, speaks)
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
        mesh, at = self._mesh, address[1]
        if at.host not in (*mesh.local, *mesh.remote, *mesh.hops):
            return len(self) > 0
        return len(self) > 1 and self._has_failed(at, self._reactor.clock())

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


def _address(at: TaskAddress) -> SocketAddress:
    return socket.AF_INET, at


def _nothing() -> None:
    """No address is refused."""
