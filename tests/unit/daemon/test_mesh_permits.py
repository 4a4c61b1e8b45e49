"""What a worker may ask its helper for, of a service of Swarm: sockets to its tasks."""

from __future__ import annotations

import pytest

from v6fwd.daemon.messages import Permit, Revoke
from v6fwd.daemon.permits import Permits, permit_for, wants_permit
from v6fwd.model import Endpoint, Forward, Mesh, Protocol

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
