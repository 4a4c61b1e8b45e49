"""Ends that vanish with data on its way, or on a silent flow; and one that is only paused."""

from __future__ import annotations

import asyncio
import select
import socket

import pytest

from tests.support.inside import client, server
from tests.support.relaying import relaying, target, until
from v6fwd.demo.lab import CONTAINER_V4, HOST_V6, Lab
from v6fwd.model import Endpoint, Forward, Limits, Mesh
from v6fwd.relay.flows import Flow
from v6fwd.relay.limits import dead_peers
from v6fwd.relay.sockets import Keepalive, prepare_listener
from v6fwd.relay.tcp.stream import StreamFlow

pytestmark = pytest.mark.netns

PORT = 8000
DROP = """
table inet gone {{
  chain in {{ type filter hook input priority 0; tcp dport {port} drop; }}
  chain out {{ type filter hook output priority 0; tcp sport {port} drop; }}
}}
"""

ALL_GONE = """
table inet gone {
  chain in { type filter hook input priority 0; drop; }
  chain out { type filter hook output priority 0; drop; }
}
"""


async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send without end: a line now and then, or as much as fits."""
    ticks = await reader.read(1) == b"t"
    try:
        while True:
            writer.write(b"tick" if ticks else bytes(65536))
            await writer.drain()
            await asyncio.sleep(0.01 if ticks else 0)  # the stream's own pace
    except OSError:
        writer.close()


def of(flows: set[Flow], end: socket.socket) -> StreamFlow | None:
    """The flow of a client."""
    port = end.getsockname()[1]
    found = [flow for flow in flows if flow.source and flow.source.port == port]
    assert len(found) <= 1
    return found[0] if found and isinstance(found[0], StreamFlow) else None


def is_full(flow: StreamFlow | None) -> bool:
    """Whether its client takes no more, and has acknowledged all that it took."""
    if flow is None or not hasattr(flow, "target"):  # not connected yet, or a pair still
        return False
    return flow.target.blocked and not dead_peers.silence_of(flow.client.fd)


async def test_a_dead_client_is_reset_and_a_paused_one_is_not(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_peers, "SILENCE", 1.0)
    monkeypatch.setattr(dead_peers, "ROUND", 0.1)
    limits = Limits(drain_timeout=0)
    async with target(speak) as behind, relaying(behind, limits=limits) as running:
        flows = running.relay.flows.live
        listen = Endpoint("::", PORT)
        listener = server(lab, "::", PORT, host="host")
        prepare_listener(listener)
        await running.relay.open(Forward(listen, behind), listener)
        paused, dead = [client(lab, "client", HOST_V6, PORT) for _ in range(2)]
        paused.sendall(b"bulk")
        dead.sendall(b"tick")
        await until(lambda: select.select([dead], [], [], 0)[0])
        await until(lambda: is_full(of(flows, paused)))
        rules = DROP.format(port=dead.getsockname()[1])
        lab.run("client", "nft", "-f", "-", input=rules).check_returncode()
        await until(lambda: of(flows, dead) is None)
        assert running.relay.totals()[str(listen)]["ends"] == {"an end acknowledges nothing": 1}
        assert is_full(of(flows, paused))
        for end in (paused, dead):
            end.close()


@pytest.mark.parametrize(
    ("more", "end"),
    [(b"more", "an end acknowledges nothing"), (b"", "reset by target")],
    ids=["data-under-way", "silent"],
)
async def test_a_task_whose_node_is_gone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, more: bytes, end: str
) -> None:
    """Its clients are told in a bounded time, which other forwards' clients are not."""
    monkeypatch.setattr(dead_peers, "MESH_SILENCE", 1.0)
    monkeypatch.setattr(dead_peers, "MESH_ROUND", 0.1)
    monkeypatch.setattr(dead_peers, "MESH_KEEPALIVE", Keepalive(1, 1, 1))
    limits = Limits(drain_timeout=0)
    unused = Endpoint("127.0.0.1", 9)
    async with relaying(unused, limits=limits) as running:
        task = server(lab, CONTAINER_V4, PORT)
        listen = Endpoint("::", PORT)
        listener = server(lab, "::", PORT, host="host")
        prepare_listener(listener)
        mesh = Mesh(f"/run/netns/{lab.namespace('host')}", "1", remote=(CONTAINER_V4,))
        await running.relay.open(Forward(listen, Endpoint("web", PORT), mesh=mesh), listener)
        end_of_client = client(lab, "client", HOST_V6, PORT)
        end_of_client.sendall(b"first")
        await until(lambda: select.select([task], [], [], 0)[0])
        accepted, _ = task.accept()
        await until(lambda: select.select([accepted], [], [], 0)[0])
        assert accepted.recv(9) == b"first"
        lab.run("container", "nft", "-f", "-", input=ALL_GONE).check_returncode()
        if more:
            end_of_client.sendall(more)
        await until(lambda: not running.relay.flows.live)
        assert running.relay.totals()[str(listen)]["ends"] == {end: 1}
        await until(lambda: select.select([end_of_client], [], [], 0)[0])
        with pytest.raises(ConnectionResetError):
            end_of_client.recv(1)
        for sock in (end_of_client, accepted, task):
            sock.close()
