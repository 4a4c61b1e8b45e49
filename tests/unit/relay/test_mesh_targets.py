"""The targets of a service whose mode changes while flows connect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.support.logged import Logged
from tests.unit.relay.test_mesh_target import FakeLoop
from v6fwd.model import ClientIP, Endpoint, Forward, Mesh, Protocol
from v6fwd.relay.budget import SOCKETS_AHEAD
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.targets.shared import Targets
from v6fwd.relay.targets.target import Target

HERE, NODE = "10.0.0.6", "10.0.0.4"


@pytest.fixture
def targets() -> Iterator[Targets]:
    loop = FakeLoop()
    reactor = Reactor(loop)
    targets = Targets(reactor, Logged().log)
    targets.privileged_ops = cast("Any", None)
    yield targets
    targets.close()
    reactor.close()
    loop.close()


def forward(protocol: Protocol, mode: ClientIP, **tasks: tuple[str, ...]) -> Forward:
    """A forward of the service."""
    mesh = Mesh("/sandbox", "1", hop_port=40848)
    return Forward(
        Endpoint("::", 8080, protocol=protocol),
        Endpoint("web", 80, protocol=protocol),
        mode,
        mesh=replace(mesh, **tasks),  # type: ignore[arg-type]
    )


def hosts(target: Target) -> list[str]:
    return [address[1].host for address in target.order()]


def test_connections_that_began_in_another_mode_go_to_nodes(targets: Targets) -> None:
    """The last task here has died; its nodes take a header whatever the mode was."""
    old = targets.of(forward(Protocol.TCP, ClientIP.NONE, local=(HERE,)))
    new = targets.of(forward(Protocol.TCP, ClientIP.PROXY_V2, hops=(NODE,)))
    assert old is not new
    assert (hosts(old), hosts(new)) == ([NODE], [NODE])


def test_sessions_of_another_mode_go_nowhere(targets: Targets) -> None:
    """They send no header, and a client could forge one."""
    old = targets.of(forward(Protocol.UDP, ClientIP.NONE, local=(HERE,)))
    new = targets.of(forward(Protocol.UDP, ClientIP.PROXY_V2, hops=(NODE,)))
    assert (hosts(old), hosts(new)) == ([], [NODE])


def test_a_task_of_another_mode_is_not_theirs(targets: Targets) -> None:
    old = targets.of(forward(Protocol.TCP, ClientIP.PROXY_V2, hops=(NODE,)))
    new = targets.of(forward(Protocol.TCP, ClientIP.NONE, local=(HERE,)))
    assert (hosts(old), hosts(new)) == ([], [HERE])


def test_descriptors_are_set_aside_for_what_a_helper_makes_ahead(targets: Targets) -> None:
    assert targets.sockets_ahead == 0
    targets.privileged_ops = cast("Any", object())
    assert targets.sockets_ahead == SOCKETS_AHEAD
