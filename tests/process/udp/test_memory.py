"""MemoryError itself, anywhere on a datagram's way: it costs what met it, and no descriptor.

CPython raises it wherever it allocates, so an errno injected into a system call does not show it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.support.datagrams import Peer, echo, peer, sessions
from tests.support.relaying import Running, relaying, until
from v6fwd.client_ip import budget
from v6fwd.client_ip.proxy.write import write_v2_dgram
from v6fwd.model import Address, ClientIP, Limits, parse_networks
from v6fwd.relay.ends import End
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.udp import listener
from v6fwd.relay.udp.demux import Demux
from v6fwd.relay.udp.listener import UdpListener
from v6fwd.relay.udp.mmsg import Inbox
from v6fwd.relay.udp.pending import PendingClients
from v6fwd.relay.udp.replies import Replies
from v6fwd.relay.udp.session import UdpSession
from v6fwd.relay.udp.session_maker import SessionMaker
from v6fwd.relay.udp.session_table import Sessions

NONE = Limits(drain_timeout=0)
CLIENT = Address(bytes.fromhex("20010db8000000000000000000000007"), 4711)


@contextmanager
def failing(owner: Any, name: str, times: int = 1) -> Iterator[list[int]]:
    """Let a method raise MemoryError so many times."""
    method: Callable[..., Any] = getattr(owner, name)
    failed: list[int] = []

    def fail(*args: Any, **options: Any) -> Any:
        if len(failed) < times:
            failed.append(1)
            raise MemoryError
        return method(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, fail)
        yield failed


async def served(one: Peer, running: Running) -> None:
    """A datagram goes there and back; what was sent meanwhile may be lost."""
    number = 0

    def is_back() -> bool:
        nonlocal number
        number += 1
        one.send(b"%d" % number, ("::1", running.port))
        return not one.received.empty()

    await until(is_back)
    while not one.received.empty():
        one.received.get_nowait()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Inbox, "receive"),
        (Demux, "sort"),
        (UdpListener, "_new_client"),
        (SessionMaker, "_addresses"),
        (SessionMaker, "_session"),
        (Sessions, "make_room"),
        (Sessions, "add"),
        (Sessions, "promote"),
        (UdpSession, "send"),
        (UdpSession, "on_event"),
        (UdpSession, "_receive_all"),
        (Replies, "room"),
        (Replies, "put"),
        (Replies, "_send"),
    ],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
async def test_on_the_way(owner: Any, name: str) -> None:
    """Clients that are known, and new ones, are served behind it; nothing is left at the end."""
    with peer("127.0.0.1", answer=echo) as target, peer("::1") as one, peer("::1") as two:
        async with relaying(target.endpoint, limits=NONE) as running:
            await served(one, running)
            before = open_descriptors()
            with failing(owner, name) as failed:
                await served(two, running)
                await served(one, running)
                await until(lambda: failed)
            await served(one, running)
            await served(two, running)
            assert len(re.findall(r"internal error.*: MemoryError\(\)", running.log)) == 1
            assert len(sessions(running)) == 2
            counters = running.relay.totals({str(running.relay.listeners[0].endpoint)})
            for numbers in counters.values():
                assert numbers["flows"] - numbers["ended"] == 2
            assert open_descriptors() == before + 1
            running.sessions.close_all(End.STOPPED)
            assert open_descriptors() == before - 1


@pytest.mark.parametrize("name", ["take", "add"])
async def test_clients_that_wait(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Those may be lost; but who comes later is no longer behind them."""
    monkeypatch.setattr(listener, "NEW_AT_ONCE", 1)
    with ExitStack() as stack:
        target = stack.enter_context(peer("127.0.0.1", answer=echo))
        clients = [stack.enter_context(peer("::1")) for _ in range(8)]
        async with relaying(target.endpoint, limits=NONE) as running:
            with failing(PendingClients, name) as failed:
                for one in clients:
                    one.send(b"hello", ("::1", running.port))
                await until(lambda: failed)
            for one in clients:
                await served(one, running)
            assert len(re.findall(r"internal error.*: MemoryError\(\)", running.log)) == 1


async def test_a_header_that_cannot_be_made() -> None:
    """It is tried once more after the others had their turn: nothing is lost."""
    mode = ClientIP.PROXY_V2
    with peer("127.0.0.1") as target, peer("::1") as one:
        async with relaying(target.endpoint, client_ip=mode, limits=NONE) as running:
            [entrance] = running.relay.listeners
            assert isinstance(entrance, UdpListener)
            with failing(entrance._forward, "write_header") as failed:
                one.send(b"hello", ("::1", running.port))
                await until(lambda: failed)
                assert (await target.receive())[0].endswith(b"hello")


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Inbox, "slot"), (Inbox, "put"), (Reactor, "resume_later")],
    ids=["keep", "put back", "come back"],
)
async def test_the_rest_of_a_batch(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the time for PROXY headers is up, the rest may be lost, but the port goes on."""
    monkeypatch.setattr(budget, "TURN", 0.0)
    header = write_v2_dgram(CLIENT, CLIENT)
    with peer("127.0.0.1", answer=echo) as target, peer("::1") as one:
        async with relaying(target.endpoint, accept_proxy=parse_networks("::1")) as running:

            async def served() -> None:
                number = 0

                def is_back() -> bool:
                    nonlocal number
                    number += 1
                    one.send_train((header + b"%04d" % number) * 3, 56, ("::1", running.port))
                    return not one.received.empty()

                await until(is_back)
                while not one.received.empty():
                    one.received.get_nowait()

            await served()
            with failing(owner, name) as failed:
                one.send_train((header + b"lost") * 3, 56, ("::1", running.port))
                await until(lambda: failed)
            await served()
            await served()
            assert len(re.findall(r"internal error.*: MemoryError\(\)", running.log)) == 1
