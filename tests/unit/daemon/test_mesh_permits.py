"""What a worker may ask its helper for, of a service of Swarm: sockets to its tasks."""

from __future__ import annotations

import socket
from typing import Any, cast

import pytest

from v6fwd.daemon.helper import Desk, RefusedError
from v6fwd.daemon.messages import Permit, Revoke
from v6fwd.daemon.permits import Permits, permit_for, wants_permit
from v6fwd.model import Endpoint, Forward, Mesh, Protocol
from v6fwd.relay.transparent.privileged import MeshSocket

BOX = "/netns/ingress_sbox"
TASK, REMOTE, OTHER = (bytes((10, 0, 0, last)) for last in (6, 7, 8))
TCP, UDP = Protocol.TCP, Protocol.UDP


def forward(*local: str) -> Forward:
    """A forward to tasks, one of them elsewhere."""
    mesh = Mesh(BOX, "1", local, ("10.0.0.7",))
    return Forward(Endpoint("::", 8080), Endpoint("web", 80), mesh=mesh)


@pytest.mark.parametrize(
    ("netns", "protocol", "task", "port", "permitted"),
    [
        (BOX, TCP, TASK, 80, True),
        (BOX, TCP, REMOTE, 80, True),
        (BOX, TCP, OTHER, 80, False),
        (BOX, TCP, TASK, 22, False),
        (BOX, UDP, TASK, 80, False),
        ("/proc/1/ns/net", TCP, TASK, 80, False),
    ],
)
def test_tasks_are_permitted_at_their_port(
    netns: str, protocol: Protocol, task: bytes, port: int, *, permitted: bool
) -> None:
    permits = Permits(lambda *_: None)
    assert wants_permit(forward("10.0.0.6"))
    permits.apply(permit_for(forward("10.0.0.6")))
    assert permits.may_connect(netns, protocol, task, port) is permitted


def test_nothing_else_comes_with_it() -> None:
    permits = Permits(lambda *_: None)
    permit = permit_for(forward("10.0.0.6"))
    permits.apply(permit)
    assert not permits.may_use(BOX)
    assert not permits.may_route()
    assert not permits.may_store(permit.store)


def test_a_task_that_has_left_is_permitted_for_a_moment() -> None:
    """A worker that is told later may still ask."""
    later = []
    permits = Permits(lambda _, call: later.append(call))
    permits.apply(permit_for(forward("10.0.0.6")))
    permits.apply(permit_for(forward()))
    assert permits.may_connect(BOX, TCP, TASK, 80)
    later.pop()()
    assert not permits.may_connect(BOX, TCP, TASK, 80)
    assert permits.may_connect(BOX, TCP, REMOTE, 80)
    permits.apply(Revoke("[::]:8080"))
    later.pop()()
    assert not permits.may_connect(BOX, TCP, REMOTE, 80)


def test_a_permit_without_a_mesh_permits_no_task() -> None:
    permits = Permits(lambda *_: None)
    permits.apply(Permit("[::]:8080", Endpoint("10.0.0.6", 80), BOX, "/store", 64))
    assert not permits.may_connect(BOX, TCP, TASK, 80)


class Ops:
    """Makes sockets here, and notes for whom."""

    def __init__(self) -> None:
        self.asked: list[MeshSocket] = []

    def mesh_socket(self, request: MeshSocket) -> socket.SocketType:
        self.asked.append(request)
        return socket.SocketType(socket.AF_INET, socket.SOCK_STREAM, 0)


def test_a_worker_gets_the_socket_that_it_may_have() -> None:
    ops, permits = Ops(), Permits(lambda *_: None)
    permits.apply(permit_for(forward("10.0.0.6")))
    desk = Desk(cast("Any", ops), permits, lambda _: ())
    desk.mesh_socket([BOX, "tcp", TASK, 80, 61]).close()
    assert ops.asked == [MeshSocket(BOX, TCP, TASK, 80, 61)]


@pytest.mark.parametrize(
    "words",
    [
        [BOX, "tcp", OTHER, 80, 0],
        [BOX, "tcp", TASK, 81, 0],
        [BOX, "udp", TASK, 80, 0],
        [BOX, "sctp", TASK, 80, 0],
        [BOX, "tcp", TASK, 80, 256],
        [BOX, "tcp", TASK, 80, -1],
        [BOX, "tcp", b"", 80, 0],
        ["/proc/1/ns/net", "tcp", TASK, 80, 0],
    ],
)
def test_a_worker_gets_no_other(words: list[Any]) -> None:
    ops, permits = Ops(), Permits(lambda *_: None)
    permits.apply(permit_for(forward("10.0.0.6")))
    with pytest.raises(RefusedError):
        Desk(cast("Any", ops), permits, lambda _: ()).mesh_socket(words)
    assert not ops.asked


def test_transparent_tasks_are_permitted_as_each_alone() -> None:
    mesh = Mesh(BOX, "1", ("10.0.0.6",), pids=("4711",))
    permits = Permits(lambda *_: None)
    permit = Permit("[::]:8080", Endpoint("web", 80), "", "/store", 64, mesh)
    permits.apply(permit)
    assert permits.may_look("4711", TASK, TCP, 80)
    assert permits.may_store("/store", 64)
    assert not permits.may_look("4712", TASK, TCP, 80)
    assert not permits.may_look("4711", OTHER, TCP, 80)
    assert not permits.may_connect(BOX, TCP, TASK, 80)
    assert not permits.may_route()
