"""A worker's helper: a small process that does for it what needs privileges.

Mode `transparent` enters namespaces, puts rules there and binds clients' addresses. The helper
meets nobody but its worker, which may have been taken over. It knows a fixed set of requests
(`wire`) and checks each against the permits that the supervisor sent (`permits`): the namespace
must be that of a target, and a socket is bound to no address that a target takes for its own
machine's. When the worker is gone it undoes what it has done and ends.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from v6fwd.client_ip.presentable import SourceFilter
from v6fwd.daemon import wire
from v6fwd.daemon.channel import Channel
from v6fwd.daemon.guards import Guards
from v6fwd.daemon.messages import Message, Permit, Revoke, read_by_helper
from v6fwd.daemon.permits import Permits, why_not_bound
from v6fwd.daemon.socket_filter import all_guarded, program, task_program
from v6fwd.errors import RelayError
from v6fwd.log import Log
from v6fwd.model import Address, Protocol
from v6fwd.model.lean import Protocol as Interface
from v6fwd.netns.netlink import Net
from v6fwd.relay.transparent.privileged import (
    AheadRequest,
    MeshAhead,
    MeshSocket,
    NetnsView,
    PrivilegedOps,
    SocketRequest,
    nets_of,
)

BATCH = 64
"""Requests answered before the event loop may do something else."""

_MESH, _MESH_AHEAD = "mesh_socket", "mesh_ahead"
"""The requests of these whose answers are sockets."""
_REQUESTS: dict[str, tuple[type, ...]] = {
    "find": (str,),
    "join": (str,),
    "leave": (str,),
    "try_out": (str, bytes, int),
    "look": (str, bytes, str, int),
    "client_left": (str, int, bytes, int),
    "store": (str,),
    "pseudo": (str, bytes, int, bool),
    "own_pseudo_net": (),
    _MESH: (str, str, bytes, int, int),
    _MESH_AHEAD: (str, bytes, int, int),
}


class RefusedError(RelayError):
    """A request that no forward needs; the text says which."""


class HelperNamespaces(PrivilegedOps, Interface):
    """What the helper itself works with."""

    def sockets_ahead(self, request: AheadRequest) -> list[socket.SocketType]:
        """Make TCP sockets that are bound later. Raises RelayError and OSError."""

    def mesh_ahead(self, request: MeshAhead) -> list[socket.SocketType]:
        """Make TCP sockets that are connected later. Raises RelayError and OSError."""


class Desk:
    """Answers requests: checks them, and has `ops` do what is permitted."""

    def __init__(
        self,
        ops: HelperNamespaces,
        permits: Permits,
        addresses_of: Callable[[str], tuple[Net, ...]],
    ) -> None:
        """`addresses_of` gives the addresses of a namespace in use, by name."""
        self._ops = ops
        self._permits = permits
        self._addresses_of = addresses_of
        self._filters: dict[str, tuple[tuple[Net, ...], SourceFilter]] = {}
        self._guards = Guards()
        self._joined: Counter[str] = Counter()
        self._clients: Counter[tuple[str, int, Address]] = Counter()

    def bound_socket(self, request: SocketRequest) -> socket.SocketType:
        """Make the socket of a request. Raises RefusedError, RelayError, OSError."""
        netns, destination, client = request.netns, request.destination, request.client
        if not self._permits.may_reach(netns, destination, request.protocol, request.port):
            raise RefusedError(f"no target of ours is at that address in {netns}")
        own = self._filter(netns)
        if (why := why_not_bound(client.packed, destination, own)) is not None:
            raise RefusedError(f"{client.host} is {why}")
        sock = self._ops.bound_socket(request)
        if request.protocol is Protocol.UDP and not destination.is_pseudo:
            bound = Address(client.packed, sock.getsockname()[1])  # maybe another port
            self._clients[netns, request.epoch, bound] += 1
        return sock

    def sockets_ahead(self, request: AheadRequest) -> list[socket.SocketType]:
        """Make sockets that a worker binds itself, each with a filter that it cannot take off.

        Raises RefusedError, RelayError, OSError.
        """
        netns, _, destination, port, number = request
        permitted = self._permits.may_reach(netns, destination, Protocol.TCP, port)
        if not permitted or not 0 < number <= wire.MOST:
            raise RefusedError(f"no target of ours is at that address in {netns}")
        own = self._addresses_of(netns)
        guard = self._guards.of(
            netns, (destination, port), own, lambda: program(destination, port, nets_of(own))
        )
        return all_guarded(self._ops.sockets_ahead(request), guard)

    def _filter(self, netns: str) -> SourceFilter:
        addresses = self._addresses_of(netns)
        known, found = self._filters.get(netns, ((), None))
        if found is None or known != addresses:
            found = SourceFilter(nets_of(addresses))
            self._filters[netns] = addresses, found
        return found

    def mesh_socket(self, words: list[Any]) -> socket.SocketType:
        """Make a socket that connects to a task. Raises RefusedError, RelayError, OSError."""
        netns, protocol, task, port, hop_limit = words
        try:
            request = MeshSocket(netns, Protocol(protocol), task, port, hop_limit)
        except ValueError:
            raise RefusedError(f"{protocol} is no protocol") from None
        permitted = self._permits.may_connect(netns, request.protocol, task, port)
        _need(permitted and 0 <= hop_limit < 256, f"no task of ours is at that address in {netns}")
        return self._ops.mesh_socket(request)

    def mesh_ahead(self, words: list[Any]) -> list[socket.SocketType]:
        """Make sockets that a worker connects itself, each with a filter that hears one task.

        Raises RefusedError, RelayError, OSError.
        """
        netns, task, port, number = request = MeshAhead(*words)
        permitted = self._permits.may_connect(netns, Protocol.TCP, task, port)
        _need(
            permitted and 0 < number <= wire.MOST, f"no task of ours is at that address in {netns}"
        )
        guard = self._guards.of(netns, (task, port), (), lambda: task_program(task, port))
        return all_guarded(self._ops.mesh_ahead(request), guard)

    def answer(self, kind: str, words: list[Any]) -> bytes:
        """Answer any other request. Raises RefusedError, RelayError, OSError."""
        value = getattr(self, f"_{kind}")(*words)
        return wire.pack_view(value) if isinstance(value, NetnsView) else wire.pack("ok", value)

    def _find(self, address: str) -> None:
        _need(self._permits.may_find(address), f"no target of ours is {address}")
        self._ops.find(address)

    def _join(self, netns: str) -> None:
        self._need_netns(netns)
        self._ops.join(netns)
        self._joined[netns] += 1

    def _leave(self, netns: str) -> None:
        _need(self._joined[netns] > 0, f"{netns} was not joined")
        self._joined[netns] -= 1
        if not self._joined[netns]:
            self._filters.pop(netns, None)
            self._guards.drop(netns)
        self._ops.leave(netns)

    def _try_out(self, netns: str, target: bytes, port: int) -> None:
        _need(self._permits.may_probe(netns, target, port), f"no target of ours is in {netns}")
        self._ops.try_out(netns, target, port)

    def _look(self, netns: str, target: bytes, protocol: str, port: int) -> NetnsView:
        transport = Protocol(protocol)
        permitted = self._permits.may_look(netns, target, transport, port)
        _need(permitted, f"no target of ours is in {netns}")
        return self._ops.look(netns, target, transport, port)

    def _client_left(self, netns: str, epoch: int, client: bytes, port: int) -> None:
        key = (netns, epoch, Address(client, port))
        _need(self._clients[key] > 0, "the client had no session")
        self._clients[key] -= 1
        if not self._clients[key]:
            del self._clients[key]
        self._ops.client_left(netns, epoch, Address(client, port))

    def _store(self, path: str) -> None:
        _need(self._permits.may_store(path), f"{path} is no store of ours")
        self._ops.store(path)

    def _pseudo(self, path: str, packed: bytes, bits: int, is_proven: bool) -> bytes:
        permitted = self._permits.may_store(path, bits) and len(packed) == 16
        _need(permitted, f"{path} is no store of ours for {bits} bits")
        return self._ops.store(path).address_of(packed, bits, is_proven=is_proven)

    def _own_pseudo_net(self) -> None:
        _need(self._permits.may_route(), "no target of ours is reached over the network")
        self._ops.own_pseudo_net()

    def _need_netns(self, netns: str) -> None:
        _need(self._permits.may_use(netns), f"no target of ours is in {netns}")


def _need(permitted: bool, why: str) -> None:
    if not permitted:
        raise RefusedError(why)


class Helper:
    """The process's two sockets, on a running event loop."""

    def __init__(self, control: socket.socket, worker: socket.socket, log: Log) -> None:
        from v6fwd.relay.reactor import Reactor
        from v6fwd.relay.transparent.namespaces import Namespaces

        self._log = log
        self._loop = asyncio.get_running_loop()
        self._permits = Permits(self._loop.call_later)
        self._ops = Namespaces(Reactor(self._loop), log)
        self._desk = Desk(self._ops, self._permits, self._ops.addresses_of)
        self._control = Channel(control, read_by_helper, self._told, ended=self.end)
        self._worker = worker
        worker.setblocking(False)
        self._buffer = bytearray(wire.MAX_REQUEST)
        self._loop.add_reader(worker, self._read)
        self.done = asyncio.Event()

    def _told(self, message: Message, _: int) -> None:
        assert isinstance(message, Permit | Revoke)
        self._permits.apply(message)

    def end(self) -> None:
        """The worker is gone: undo what was done for it."""
        if self._worker.fileno() >= 0:
            self._loop.remove_reader(self._worker)
            self._worker.close()
            self._control.close()
            self._ops.close()
            self.done.set()

    def _read(self) -> None:
        for _ in range(BATCH):
            try:
                size = self._worker.recv_into(self._buffer)
            except BlockingIOError:
                return
            except OSError:
                size = 0
            if not size:
                self.end()
                return
            self._serve(bytes(memoryview(self._buffer)[:size]))

    def _serve(self, packet: bytes) -> None:
        """Answer a request. Raises WireError, which ends the process."""
        try:
            self._try(packet)
        except RefusedError:
            self._control.read_all()  # a permit may be on its way
            try:
                self._try(packet)
            except RefusedError as error:
                self._log.limited("helper", "helper-refused", f"a worker was refused: {error}")
                self._send(wire.pack_error(error))

    def _try(self, packet: bytes) -> None:
        try:
            if wire.is_ahead(packet):
                self._send_all(self._desk.sockets_ahead(wire.read_ahead(packet)))
                return
            if not wire.is_bound(packet):
                kind, words = wire.read(packet, _REQUESTS)
                if kind == _MESH_AHEAD:
                    self._send_all(self._desk.mesh_ahead(words))
                elif kind == _MESH:
                    self._send_all([self._desk.mesh_socket(words)])
                else:
                    self._send(self._desk.answer(kind, words))
                return
            self._send_all([self._desk.bound_socket(wire.read_bound(packet))])
        except (RefusedError, wire.WireError):
            raise
        except (RelayError, OSError) as error:
            self._send(wire.pack_error(error))

    def _send_all(self, sockets: list[socket.SocketType]) -> None:
        try:
            self._send(wire.SOCKET, *[sock.fileno() for sock in sockets])
        finally:
            for sock in sockets:
                sock.close()

    def _send(self, answer: bytes, *fds: int) -> None:
        """A worker that does not take its answers is no worker. Raises WireError."""
        try:
            socket.send_fds(self._worker, [answer], list(fds), socket.MSG_NOSIGNAL)
        except BrokenPipeError:
            return
        except OSError as error:
            raise wire.WireError(f"answers are not taken: {error}") from None


async def serve(control: socket.socket, worker: socket.socket, log: Log) -> None:
    """Serve until the worker or the supervisor is gone."""
    failed: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()

    def tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not failed.done():
            failed.set_exception(context.get("exception") or RuntimeError(context["message"]))

    asyncio.get_running_loop().set_exception_handler(tell)
    helper = Helper(control, worker, log)
    done: asyncio.Future[Any] = asyncio.ensure_future(helper.done.wait())
    told: asyncio.Future[Any] = failed
    try:
        await asyncio.wait([done, told], return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            failed.result()
    finally:
        helper.end()


def main(control: socket.socket, worker: socket.socket, log: Log) -> int:
    """Serve; return the exit status."""
    try:
        asyncio.run(serve(control, worker, log))
    except wire.WireError as error:
        log.error("failed", f"a worker's helper ends: {error}")
        return 1
    except Exception as error:
        log.error("defect", f"internal error: {error!r}")
        return 1
    return 0
