"""What cannot be watched is registered nowhere: neither the gate nor others meet it later."""

from __future__ import annotations

import errno
import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.logged import Logged
from tests.support.relaying import relaying
from v6fwd.docker.intake import Intake
from v6fwd.docker.shim.process import LET_GO, NoShimError, Shim
from v6fwd.docker.shim.rendezvous import Rendezvous
from v6fwd.model import Endpoint, Forward, Protocol
from v6fwd.relay.counters import Counters
from v6fwd.relay.flows import Flows
from v6fwd.relay.listener import Gate, Listener
from v6fwd.relay.relay import listen_on


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "no more watches")


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP])
async def test_a_listener_that_cannot_be_watched(
    protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = Endpoint("127.0.0.1", 9)
    failing = Forward(Endpoint("::1", 0, protocol), to)
    async with relaying(to) as running:
        relay = running.relay
        (first,) = relay._gate._listeners
        with monkeypatch.context() as patch:
            patch.setattr(relay.reactor, "watch", full)
            sock = listen_on(failing.listen)
            with pytest.raises(OSError, match="no more watches"):
                await relay.open(failing, sock)
        assert sock.fileno() == -1, "clients would wait there"
        assert relay._gate._listeners == [first]
        assert not relay._gate.is_shared
        assert relay.listeners == [first]
        assert not relay.resources.udp(running.limits).own._bound
        relay._gate._reopen()  # meets nothing that is closed
        assert first.watched


def test_a_shim_that_cannot_be_watched_serves_itself(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would hear of its end, and its port would stay open."""
    said: list[Any] = []
    shim = SimpleNamespace(pid=7, watch=full, tell=said.append, close=lambda: said.append("closed"))
    monkeypatch.setattr(Shim, "find", lambda *_: shim)
    monkeypatch.setattr(Rendezvous, "rest", None)
    intake = Intake(cast(Any, SimpleNamespace(adopt=said.append)), logged.log)
    with pytest.raises(NoShimError, match="cannot watch process 7"):
        intake._find(7)
    intake._on_line(7, 0, False)
    assert said == [LET_GO, "closed"] * 2
    assert not intake._shims


def test_a_gate_that_is_shut_watches_later(logged: Logged) -> None:
    """The listener is added all the same."""

    watched: list[int] = []
    loop = SimpleNamespace(call_later=lambda *_: SimpleNamespace(cancel=lambda: None))
    reactor = SimpleNamespace(
        loop=loop,
        clock=lambda: 0.0,
        watch=lambda fd, *_: watched.append(fd),
        unwatch=watched.remove,
        attempt=lambda _, call, *words: call(*words),
    )
    gate = Gate(cast(Any, reactor), Flows(10), logged.log)
    gate._shut(1.0, shed=False)
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as sock:
        one = Listener(Endpoint("::1", 0), sock, lambda *_: None, gate, Counters())
        assert watched == []
        gate._reopen()
        assert watched == [one.fileno()]
        gate.close()
