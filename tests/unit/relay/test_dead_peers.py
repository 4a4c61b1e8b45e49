"""When a peer counts as dead: with silences that the test makes up."""

from __future__ import annotations

import socket
from typing import Any, cast

import pytest

from tests.unit.relay.test_flows import FakeFlow
from tests.unit.relay.test_session_table import FakeReactor
from v6fwd.model import Endpoint, Forward, Mesh
from v6fwd.relay.ends import End
from v6fwd.relay.flows import Flows
from v6fwd.relay.limits import dead_peers
from v6fwd.relay.limits.dead_peers import (
    BATCH,
    MESH_SILENCE,
    ROUND,
    SILENCE,
    DeadPeers,
    in_mesh,
    silence_of,
)


class Connected(FakeFlow):
    """A flow with sockets 1 and 2."""

    def descriptors(self) -> tuple[int, ...]:
        return 1, 2


class Stage:
    """Flows, and how long each socket waits for an ACK."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.silences: dict[int, float] = {}
        monkeypatch.setattr(dead_peers, "silence_of", lambda fd: self.silences.get(fd, 0.0))
        self.flows = Flows(1000)
        self.reactor = FakeReactor()
        self.peers = DeadPeers(cast("Any", self.reactor), self.flows)

    def look(self, flow: Connected, after: float, **silences: float) -> None:
        """Look at a flow after so many seconds; client and target have been silent for some."""
        self.reactor.now += after
        self.silences = {1: silences.get("client", 0.0), 2: silences.get("target", 0.0)}
        self.peers.look([flow])


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


@pytest.mark.parametrize("end", ["client", "target"])
def test_who_acknowledges_nothing_is_reset(stage: Stage, end: str) -> None:
    flow = Connected(stage.flows)
    stage.look(flow, 0, **{end: 5})
    stage.look(flow, SILENCE - 1, **{end: SILENCE + 4})
    assert flow.ends == []
    stage.look(flow, 1, **{end: SILENCE + 5})
    assert flow.ends == [End.DEAD_PEER]


def test_data_after_a_long_silence_is_new(stage: Stage) -> None:
    """The other end has waited for an ACK at every look meanwhile, and got some."""
    flow = Connected(stage.flows)
    stage.look(flow, 0, target=0.1)
    stage.look(flow, 3600, client=3600, target=0.1)
    assert flow.ends == []


def test_an_ack_now_and_then_is_life(stage: Stage) -> None:
    flow = Connected(stage.flows)
    for _ in range(100):
        stage.look(flow, 60, client=100)
    assert flow.ends == []


def test_a_gap_without_data_begins_anew(stage: Stage) -> None:
    flow = Connected(stage.flows)
    stage.look(flow, 0, client=500)
    stage.look(flow, 100, client=0)
    stage.look(flow, 100, client=700)
    assert flow.ends == []


def test_every_flow_is_looked_at_in_turns(stage: Stage) -> None:
    flows = [Connected(stage.flows) for _ in range(3 * BATCH)]
    stage.silences = {1: 2 * SILENCE}
    stage.reactor.advance(SILENCE + 4 * ROUND)
    assert {tuple(flow.ends) for flow in flows} == {(End.DEAD_PEER,)}


def test_a_flow_that_left_is_not_looked_at(stage: Stage) -> None:
    """Its descriptors may belong to another one."""
    flow = Connected(stage.flows)
    stage.look(flow, 0, client=1)
    flow.abort(End.CLOSED)
    stage.look(flow, 2 * SILENCE, client=2 * SILENCE)
    assert flow.ends == [End.CLOSED]


class InMesh(Connected):
    """A flow from a client to a task of Swarm."""

    forward = Forward(Endpoint("::", 80), Endpoint("web", 80), mesh=Mesh("/sandbox"))


class ByHop(Connected):
    """A flow from another node to a task."""

    forward = Forward(
        Endpoint("10.0.0.2", 80), Endpoint("web", 80), mesh=Mesh("/sandbox", is_hop=True)
    )


@pytest.mark.parametrize(
    ("kind", "end", "seconds"),
    [
        (Connected, "client", SILENCE),
        (Connected, "target", SILENCE),
        (InMesh, "client", SILENCE),
        (InMesh, "target", MESH_SILENCE),
        (ByHop, "client", MESH_SILENCE),
        (ByHop, "target", MESH_SILENCE),
    ],
)
def test_nodes_are_given_up_sooner(
    stage: Stage, kind: type[Connected], end: str, seconds: float
) -> None:
    """A client of a mesh's port is as far away as any other."""
    flow = kind(stage.flows)
    mesh = DeadPeers(cast("Any", stage.reactor), stage.flows, in_mesh())
    for after, ends in ((0, []), (seconds - 1, []), (1, [End.DEAD_PEER])):
        stage.look(flow, after, **{end: 2 * SILENCE})
        mesh.look([flow])
        assert flow.ends == ends


def test_nobody_looks_for_nodes_without_a_port_of_the_mesh(stage: Stage) -> None:
    stage.reactor.armed = None
    stage.peers.keep([Connected.forward])
    assert stage.reactor.armed is None
    stage.peers.keep([Connected.forward, InMesh.forward])
    assert stage.reactor.armed is not None


def keepalive(sock: socket.socket) -> tuple[int, int, int]:
    """Whether it is on, and its seconds: before the first probe, between two."""
    tcp = socket.IPPROTO_TCP
    return (
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        sock.getsockopt(tcp, socket.TCP_KEEPIDLE),
        sock.getsockopt(tcp, socket.TCP_KEEPINTVL),
    )


def test_a_flow_that_lives_gets_keepalive(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its target's connection was made without: most flows are shorter."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as target,
    ):
        fds = client.fileno(), target.fileno()
        monkeypatch.setattr(Connected, "descriptors", lambda _: fds)
        flow = Connected(stage.flows)
        assert keepalive(target)[0] == 0
        stage.look(flow, 0)
        assert keepalive(client) == keepalive(target) == (1, 60, 15)
        assert flow.ends == []


def test_keepalive_of_what_is_no_tcp(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = socket.socketpair()
    with one, other:
        monkeypatch.setattr(Connected, "descriptors", lambda _: (one.fileno(), other.fileno()))
        flow = Connected(stage.flows)
        stage.look(flow, 0)
        assert flow.ends == []


def test_silence_of_what_is_acknowledged_or_no_tcp() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert silence_of(client.fileno()) == 0
    one, other = socket.socketpair()
    with one, other:
        one.send(b"x")
        assert silence_of(one.fileno()) == 0
