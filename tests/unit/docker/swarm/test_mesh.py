"""The mesh as an Engine tells of it, again and again: answers, silence, rules that change."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_engine import HEAD, FakeEngine, hangs, says
from tests.support.logged import Logged
from tests.support.process import PATIENCE, free_port
from tests.unit.docker.swarm.answers import CONTAINER, HERE, THERE, recorded
from v6fwd.config import Docker
from v6fwd.config.rules import Rule
from v6fwd.daemon.supervisor import Supervisor
from v6fwd.docker.engine import client
from v6fwd.docker.engine.containers import SERVICE, Container
from v6fwd.docker.policy.modes import Modes
from v6fwd.docker.swarm import mesh
from v6fwd.docker.swarm.dockerd import Sandbox
from v6fwd.docker.swarm.mesh import SwarmMesh
from v6fwd.errors import RelayError
from v6fwd.log import in_background
from v6fwd.model import ClientIP, Endpoint, Forward, Limits, Protocol
from v6fwd.netns.handle import own_identity

BOX = Sandbox("/proc/self/ns/net", own_identity(), os.getpid())
LABELLED = Container(CONTAINER, "pub.2.x", labels={SERVICE: "pub", "v6fwd.client-ip": "proxy-v1"})


class Bench:
    """A mesh and its Engine."""

    def __init__(self, folder: Path, *rules: Rule) -> None:
        self.engine = FakeEngine(folder / "engine.sock")
        self.logged = Logged()
        self.supervisor = Supervisor(1, Limits(), self.logged.log)
        self.docker = Docker(self.engine.host, rules, swarm=True)
        modes = Modes(rules, self.docker.transparent, self.logged.log)
        self.changes = 0
        parts = self.docker, self.supervisor, modes, Limits(), self.logged.log
        self.mesh = SwarmMesh(*parts, self.changed)
        self.port = free_port()
        self.listen = Endpoint("::", self.port)

    def changed(self) -> None:
        self.changes += 1

    def answers(self, *tasks: str) -> None:
        """Let the Engine tell of these tasks; without any, of no service.

        docker_gwbridge gets the same answer: the sandbox's address there is read of it.
        """
        answer = recorded()
        service = answer["Services"]["pub"]
        service["Ports"] = [f"Target: 80, Publish: {self.port}"]
        service["Tasks"] = [each for each in service["Tasks"] if each["EndpointIP"] in tasks]
        if not tasks:
            del answer["Services"]["pub"]
        self.engine.inspect = says(HEAD + json.dumps(answer).encode())

    @property
    def forward(self) -> Forward | None:
        return self.supervisor.forwards.get(self.listen)

    async def until(self, condition: Any) -> None:
        """Let the mesh go on until it is so; it asks at once."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.mesh.told(self.mesh._containers)
                await asyncio.sleep(0.001)


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(mesh, "find_sandbox", lambda **_: BOX)
    monkeypatch.setattr(mesh, "LEAST", 0.001)
    monkeypatch.setattr(Sandbox, "listen", _refuse)
    bench = Bench(tmp_path)
    await bench.engine.start()
    bench.answers(HERE, THERE)
    bench.mesh.start(lambda coroutine: in_background(coroutine, "mesh"))
    yield bench
    bench.mesh.stop()
    bench.supervisor.listen_sockets.close_all()
    await bench.engine.stop()


def _refuse(_: Sandbox, endpoint: Endpoint) -> None:
    raise RelayError(f"there is no {endpoint} here")


async def test_it_is_served_as_labels_ask(bench: Bench) -> None:
    bench.mesh.told([LABELLED])
    await bench.until(lambda: bench.forward)
    assert bench.forward is not None
    assert bench.forward.client_ip is ClientIP.PROXY_V1
    assert bench.forward.mesh.local == (HERE,)
    assert bench.mesh.has_answered
    [seen] = bench.mesh.forwards()
    assert seen.target == Endpoint("10.0.0.3", bench.port)
    assert bench.changes == 1


async def test_nothing_is_settled_before_containers_are_known(bench: Bench) -> None:
    """Else a takeover would close the sockets of ports whose labels are not read yet."""
    async with asyncio.timeout(PATIENCE):
        while not bench.engine.asked("/networks/docker_gwbridge"):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
    assert not bench.mesh.has_answered
    bench.mesh.told([LABELLED])
    await bench.mesh.first_answer()
    assert bench.mesh.has_answered


async def test_a_silent_engine_changes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.2)
    bench.mesh.told([LABELLED])
    await bench.until(lambda: bench.forward)
    before = bench.forward
    bench.engine.inspect = hangs
    await bench.until(lambda: "mesh-lost" in dict(bench.logged.lines()))
    assert bench.forward == before
    assert bench.changes == 1


@pytest.mark.parametrize("answer", [b"{}", b"[]", b"no JSON", b'{"Ingress": true}'])
async def test_an_answer_that_cannot_be_read_changes_nothing(bench: Bench, answer: bytes) -> None:
    bench.mesh.told([LABELLED])
    await bench.until(lambda: bench.forward)
    before = bench.forward
    bench.engine.inspect = says(HEAD + answer)
    await bench.until(lambda: "mesh-lost" in dict(bench.logged.lines()))
    assert bench.forward == before


async def test_an_engine_that_is_starting_knows_nothing_yet(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that it does not tell of are kept for a while; of one that has been up, not."""
    bench.mesh.told([LABELLED])
    await bench.until(lambda: bench.forward)
    bench.engine.inspect = says(HEAD + b"{}")
    await bench.until(lambda: "mesh-lost" in dict(bench.logged.lines()))
    bench.answers()
    asked = len(bench.engine.paths)
    await bench.until(lambda: len(bench.engine.paths) > asked + 4)
    assert bench.forward is not None
    assert bench.forward.mesh.local == (HERE,)
    monkeypatch.setattr(mesh, "LINGER", 0.0)
    await bench.until(lambda: bench.forward and not bench.forward.mesh.local)


async def test_rules_that_change(bench: Bench) -> None:
    bench.mesh.told([LABELLED])
    await bench.until(lambda: bench.forward)
    rules = (Rule(ClientIP.NONE, service="pub"),)
    bench.mesh._modes.rules = rules
    bench.mesh.reconfigure(Docker(bench.engine.host, rules, swarm=True))
    await bench.until(lambda: bench.forward and bench.forward.client_ip is ClientIP.NONE)
    assert bench.forward is not None
    assert bench.forward.mesh.remote == (THERE,)
    assert bench.mesh.forwards() == [], "IPv4 clients stay with Docker"


async def test_a_rule_tells_the_protocol_where_dockerd_does_not(bench: Bench) -> None:
    ports = range(bench.port, bench.port + 1)
    rules = (Rule(ClientIP.PROXY_V2, ports, Protocol.UDP, service="pub"),)
    bench.mesh._modes.rules = rules
    bench.mesh.reconfigure(Docker(bench.engine.host, rules, swarm=True))
    listen = Endpoint("::", bench.port, protocol=Protocol.UDP)
    bench.mesh.told([LABELLED])
    await bench.until(lambda: listen in bench.supervisor.forwards)
    assert bench.forward is None


async def test_what_is_told_of_the_swarm(bench: Bench) -> None:
    bench.mesh.told([LABELLED])
    await bench.until(lambda: bench.forward)
    told = bench.mesh.report()
    assert [each["listen"] for each in told["published"]] == [str(bench.listen)]
    assert told["services"] == [
        {"service": "pub", "ports": [bench.port], "here": 1, "elsewhere": 1}
    ]
    assert told["nodes"][0] == {"node": "203.0.113.12", "here": True, "tasks": 1}
    [swarm] = told["swarm"]
    assert swarm["told"] > 0


async def test_nothing_is_told_before_the_engine_has(tmp_path: Path) -> None:
    told = Bench(tmp_path).mesh.report()
    assert told == {"published": [], "services": [], "nodes": [], "swarm": [{"told": 0.0}]}


async def test_it_ends(bench: Bench) -> None:
    bench.mesh.told([LABELLED])
    await bench.until(lambda: bench.forward)
    bench.mesh.stop()
    assert bench.forward is None
    assert bench.mesh.endpoints() == []
    assert bench.mesh.forwards() == []
