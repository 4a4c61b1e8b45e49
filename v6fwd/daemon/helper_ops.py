"""A worker's side of its helper: privileged operations as requests, one after the other.

A request blocks the worker as the operation itself would in a process with privileges. A helper
that does not answer is a defect, and the worker with it: it ends and is replaced.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from v6fwd.client_ip.destination import Destination
from v6fwd.client_ip.pseudo_ipv4 import network_of
from v6fwd.daemon import wire
from v6fwd.daemon.sockets_ahead import SocketsAhead, Taker
from v6fwd.errors import NotPermittedError
from v6fwd.log import Log
from v6fwd.model import Address, Protocol
from v6fwd.relay.transparent.privileged import (
    AheadRequest,
    MeshAhead,
    MeshSocket,
    NetnsView,
    SocketRequest,
)
from v6fwd.relay.transparent.task_socket import KINDS

PATIENCE = 5
"""Seconds for an answer."""
CACHED = 65_536
"""Pseudo addresses kept in memory, about 200 bytes each."""
KEPT = 300.0
"""Seconds until the store is asked again, which notes that the client is still about."""
_INT = array.array("i").itemsize


class HelperOps:
    """PrivilegedOps at the other end of a SEQPACKET socket.

    Large because it is all of PrivilegedOps, and what makes sockets ahead.
    """

    def __init__(
        self, sock: socket.socket, log: Log, later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        """`later` calls back after some seconds."""
        sock.setblocking(True)
        patience = struct.pack("ll", PATIENCE, 0)  # struct timeval; no poll(2) before each call
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, patience)
        self._socket = sock
        self._log = log
        self._answer = bytearray(wire.MAX_ANSWER)
        self._view = memoryview(self._answer)
        self._room = socket.CMSG_LEN(wire.MOST * _INT)
        self._stores: dict[str, HelperStore] = {}
        self._has_filters = True
        self._ahead = SocketsAhead(self, later)
        self._ordered: tuple[AheadRequest | MeshAhead, Taker] | None = None
        """What the helper is making, and who gets it."""

    # -- PrivilegedOps --

    def find(self, address: str) -> None:
        self._ask("find", address)

    def join(self, netns: str) -> None:
        self._ask("join", netns)

    def leave(self, netns: str) -> None:
        self._ahead.drop(netns)
        self._ask("leave", netns)

    def try_out(self, netns: str, target: bytes, port: int) -> None:
        self._ask("try_out", netns, target, port)

    def look(self, netns: str, target: bytes, protocol: Protocol, port: int) -> NetnsView:
        view = wire.read_view(self._ask("look", netns, target, str(protocol), port))
        self._ahead.drop(netns, but=view.epoch)
        return view

    def bound_socket(self, request: SocketRequest) -> socket.SocketType:
        if request.protocol is Protocol.TCP and self._has_filters:
            try:
                return self._ahead.take(request)
            except NotPermittedError as error:  # each socket is bound by the helper, then
                self._has_no_filters(error)
        (fd,) = self._sockets(wire.pack_bound(request))
        return _made(request.destination, request.protocol, fd)

    def _sockets(self, request: bytes) -> list[int]:
        size, fds = self._exchange(request)
        if not fds:
            wire.read_answer(bytes(self._view[:size]))
            self._end("an answer without a socket")
        return fds

    def mesh_socket(self, request: MeshSocket) -> socket.SocketType:
        if request.protocol is Protocol.TCP and self._has_filters:
            try:
                return self._ahead.to_task(request)
            except NotPermittedError as error:  # each socket is connected by the helper, then
                self._has_no_filters(error)
        netns, protocol, task, port, hop_limit, *_ = request
        (fd,) = self._sockets(wire.pack("mesh_socket", netns, str(protocol), task, port, hop_limit))
        return socket.SocketType(socket.AF_INET, KINDS[protocol], 0, fd)

    def _has_no_filters(self, error: NotPermittedError) -> None:
        self._has_filters = False
        self._log.info("no-sockets-ahead", f"sockets are made one by one: {error}")

    def client_left(self, netns: str, epoch: int, client: Address) -> None:
        self._ask("client_left", netns, epoch, client.packed, client.port)

    def store(self, path: str) -> HelperStore:
        found = self._stores.get(path)
        if found is None:
            self._ask("store", path)
            found = self._stores[path] = HelperStore(path, self._ask)
        return found

    def own_pseudo_net(self) -> None:
        self._ask("own_pseudo_net")

    def close(self) -> None:
        """The helper undoes everything when this end is closed."""
        self._ahead.close()
        self._ordered = None
        self._socket.close()

    # -- sockets ahead --

    def make(self, request: AheadRequest | MeshAhead) -> list[socket.SocketType]:
        return _made_ahead(request, self._sockets(_packed(request)))

    def order(self, request: AheadRequest | MeshAhead, then: Taker) -> None:
        self.collect()
        self._send(_packed(request))
        self._ordered = request, then

    def collect(self) -> None:
        if self._ordered is None:
            return
        (request, then), self._ordered = self._ordered, None
        fds: list[int] = []
        try:
            with contextlib.suppress(OSError):  # no descriptor is left: a request tells
                _, fds = self._receive()
        finally:
            then(_made_ahead(request, fds))

    # -- the channel --

    def _ask(self, *words: Any) -> Any:
        size, _ = self._exchange(wire.pack(*words))
        return wire.read_answer(bytes(self._view[:size]))

    def _exchange(self, request: bytes) -> tuple[int, list[int]]:
        """Send a request; return the size of the answer and the descriptors that come with it."""
        self.collect()  # answers come in the order of requests
        self._send(request)
        return self._receive()

    def _send(self, request: bytes) -> None:
        try:
            self._socket.send(request, socket.MSG_NOSIGNAL)
        except OSError as error:
            self._end(os.strerror(error.errno or 0).lower())

    def _receive(self) -> tuple[int, list[int]]:
        """Raises OSError where no descriptor is left for those that came."""
        try:
            size, ancillary, flags, _ = self._socket.recvmsg_into(
                [self._answer], self._room, socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            self._end(os.strerror(error.errno or 0).lower())
        if not size:
            self._end("it is gone")
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data[: len(data) - len(data) % _INT])
        if flags & socket.MSG_CTRUNC and not fds:  # the kernel has closed what came
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return size, fds.tolist()

    def _end(self, why: str) -> NoReturn:
        self._log.error("failed", f"a worker's helper does not answer: {why}")
        os._exit(1)


def _packed(request: AheadRequest | MeshAhead) -> bytes:
    if isinstance(request, MeshAhead):
        return wire.pack("mesh_ahead", *request)
    return wire.pack_ahead(request)


def _made_ahead(request: AheadRequest | MeshAhead, fds: Iterable[int]) -> list[socket.SocketType]:
    if isinstance(request, MeshAhead):
        return [socket.SocketType(socket.AF_INET, KINDS[Protocol.TCP], 0, fd) for fd in fds]
    return [_made(request.destination, Protocol.TCP, fd) for fd in fds]


def _made(destination: Destination, protocol: Protocol, fd: int) -> socket.SocketType:
    family = socket.AF_INET if len(destination.address) == 4 else socket.AF_INET6
    return socket.SocketType(family, KINDS[protocol], 0, fd)


class HelperStore:
    """A store of pseudo addresses behind the helper, and a cache of it."""

    def __init__(
        self,
        path: str,
        ask: Callable[..., Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives seconds."""
        self._path = path
        self._ask = ask
        self._clock = clock
        self._cache: dict[tuple[bytes, int], tuple[bytes, bool, float]] = {}

    def address_of(self, packed: bytes, bits: int, *, is_proven: bool = True) -> bytes:
        """Return the pseudo address of an IPv6 client. Raises RelayError."""
        key = (network_of(packed, bits), bits)
        address, was_proven, until = self._cache.get(key, (b"", False, 0.0))
        now = self._clock()
        if not address or now > until or (is_proven and not was_proven):
            address = bytes.fromhex(self._ask("pseudo", self._path, packed, bits, is_proven))
            if len(self._cache) >= CACHED:
                del self._cache[next(iter(self._cache))]
            self._cache[key] = address, is_proven, now + KEPT
        return address
