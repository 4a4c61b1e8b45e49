"""What mode transparent and the mesh need privileges for, behind one interface of plain data.

`Namespaces` does it in this process. A helper process can do it as well: every argument and
answer is plain data, but for the socket, which SCM_RIGHTS passes.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from v6fwd.client_ip.destination import Destination
from v6fwd.model import Address, IPNetwork, Protocol
from v6fwd.model.lean import NamedTuple
from v6fwd.model.lean import Protocol as Interface
from v6fwd.netns.netlink import Net


class NetnsView(NamedTuple):
    """A network namespace as it was when somebody looked."""

    epoch: int
    """Changes when the name leads to another namespace; a container's restart makes one."""
    addresses: tuple[Net, ...]
    listening: tuple[tuple[bytes, bool], ...]
    """Addresses listened on at the port asked for, and whether for IPv6 alone."""


def nets_of(addresses: Iterable[Net]) -> list[IPNetwork]:
    """The networks that a namespace is in, by its addresses."""
    return [ipaddress.ip_network((net.packed, net.length), strict=False) for net in addresses]


class SocketRequest(NamedTuple):
    """A socket in a namespace that is bound to a client's address."""

    netns: str
    epoch: int
    """The namespace must still be the one of this NetnsView."""
    protocol: Protocol
    destination: Destination
    port: int
    """The target's."""
    client: Address
    """What to bind: the client's address, or its pseudo address if the destination asks for one.
    Port 0 lets the kernel choose."""


class AheadRequest(NamedTuple):
    """TCP sockets that may be bound to a client's address, for connections to a destination."""

    netns: str
    epoch: int
    destination: Destination
    port: int
    number: int
    """How many."""


class MeshAhead(NamedTuple):
    """TCP sockets in dockerd's ingress_sbox that may be connected to one task."""

    netns: str
    task: bytes
    port: int
    number: int
    """How many."""


class MeshSocket(NamedTuple):
    """A socket that connects to a task of Swarm, from within dockerd's ingress_sbox."""

    netns: str
    """The path of that namespace."""
    protocol: Protocol
    task: bytes
    """Its IPv4 address in the ingress network."""
    port: int
    hop_limit: int = 0
    """Of what it sends; 0: the system's."""
    identity: str = ""
    """Which namespace is there now, as far as is known: no socket of another one will do."""
    speaks: bool = False
    """Whether something is written as soon as it is connected."""


class PseudoAddresses(Interface):
    """Which pseudo IPv4 address stands for whom; see pseudo_store."""

    def address_of(self, packed: bytes, bits: int, *, is_proven: bool = True) -> bytes:
        """The pseudo address of an IPv6 client. Raises RelayError."""


class PrivilegedOps(Interface):
    """All that targets do with privileges."""

    def find(self, address: str) -> None:
        """Check that an address is in a namespace that we can enter. Raises RelayError, OSError."""

    def join(self, netns: str) -> None:
        """Keep a namespace in use: enter it when it is needed, look whether it has gone."""

    def leave(self, netns: str) -> None:
        """Undo one `join`; with the last one everything put into the namespace is removed."""

    def try_out(self, netns: str, target: bytes, port: int) -> None:
        """Check that sockets can be made there. Raises RelayError, NotPermittedError for rights."""

    def look(self, netns: str, target: bytes, protocol: Protocol, port: int) -> NetnsView:
        """See who listens where the name leads to now.

        Raises RelayError, also where `target` is no address of that namespace, and OSError.
        """

    def bound_socket(self, request: SocketRequest) -> socket.SocketType:
        """Make a non-blocking socket that may connect to the destination.

        Rules and routes that its answers need are put in place. Raises RelayError and OSError;
        ECONNREFUSED where the namespace is another one by now.
        """

    def mesh_socket(self, request: MeshSocket) -> socket.SocketType:
        """Make a non-blocking socket that connects to a task. Raises RelayError and OSError."""

    def client_left(self, netns: str, epoch: int, client: Address) -> None:
        """Remove what `bound_socket` put in place for a UDP socket with a real address.

        `client` has that socket's port, which may be another than the client's.
        """

    def store(self, path: str) -> PseudoAddresses:
        """The store of pseudo addresses in a file of root's. Raises RelayError."""

    def own_pseudo_net(self) -> None:
        """Make 240.0.0.0/4 local in our own namespace. Raises RelayError."""

    def close(self) -> None:
        """Undo everything."""
