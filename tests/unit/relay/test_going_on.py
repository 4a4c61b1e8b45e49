"""An exception in a timer or in one of many costs whom it belongs to: the others have their turn.

Each of these runs for as long as the process: what ends one of them silently ends a watch for good.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.datagrams import echo as echo_datagrams
from tests.support.datagrams import peer, sessions
from tests.support.logged import Logged
from tests.support.relaying import Running, echo, relaying, target, until
from tests.unit.relay.test_deadlines import FakeReactor as TurnedByHand
from tests.unit.relay.test_deadlines import Item
from tests.unit.relay.test_flows import FakeFlow
from tests.unit.relay.test_port_shares import FakeFlow as FlowOfPort
from tests.unit.relay.test_port_shares import Stage as Ports
from tests.unit.relay.test_session_table import TIMEOUT, FakeReactor, FakeSession
from v6fwd.log import attempt, log_exceptions
from v6fwd.model import Endpoint, Forward, Limits
from v6fwd.relay import idle, listener
from v6fwd.relay.counters import Counters
from v6fwd.relay.deadlines import Deadlines
from v6fwd.relay.ends import End
from v6fwd.relay.flows import Flows
from v6fwd.relay.idle import IdleSweeps
from v6fwd.relay.limits import dead_peers
from v6fwd.relay.limits.dead_peers import ROUND, SILENCE, DeadPeers
from v6fwd.relay.listener import Listener
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.targets.direct import DirectTarget
from v6fwd.relay.targets.resolver import Resolver
from v6fwd.relay.transparent.namespaces import LOOK_INTERVAL, Namespaces
from v6fwd.relay.transparent.pseudo_store import WRITE_SEEN_EVERY, PseudoStore
from v6fwd.relay.udp.session_table import Sessions


def no_memory(*_: object, **__: object) -> None:
    raise MemoryError


class Unlucky(FakeFlow):
    """Cannot be reset for want of memory, until its descriptors are given up."""

    def abort(self, end: End, detail: str = "") -> None:
        if end is not End.INTERNAL_ERROR:
            raise MemoryError
        super().abort(end, detail)

    def descriptors(self) -> tuple[int, ...]:
        raise MemoryError


# ---- the two helpers ------------------------------------------------------------------------


async def test_what_is_attempted_is_logged(logged: Logged) -> None:
    log_exceptions(asyncio.get_running_loop(), logged.log)
    done: list[str] = []
    attempt(no_memory)
    attempt(done.append, "next")
    assert done == ["next"]
    assert logged.lines() == [("defect", "internal error: MemoryError()")]


class Failing:
    """Fails to clean up so many times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.told: list[str] = []

    def on_exception(self, error: Exception) -> None:
        self.told.append(repr(error))
        if len(self.told) <= self.failures:
            raise MemoryError


async def test_who_cannot_clean_up_is_asked_again_without_any_event() -> None:
    reactor = Reactor(asyncio.get_running_loop())
    owner = Failing(2)
    reactor.attempt(owner, int, "no number")
    await until(lambda: len(owner.told) == 3)
    assert "no number" in owner.told[0]
    reactor.close()


# ---- flows ----------------------------------------------------------------------------------


def test_a_deadline_that_fails() -> None:
    reactor = TurnedByHand()
    told: list[str] = []

    def expire(name: str) -> None:
        if name == "a":
            raise MemoryError
        told.append(name)

    limit = Deadlines(cast("Reactor", reactor), 5.0)
    for name in "ab":
        limit.add(Item(name, expire))
    reactor.advance(102)
    limit.add(Item("c", expire))
    reactor.advance(120)
    assert told == ["a: MemoryError()", "b", "c"]


class Timers(FakeReactor):
    """A timer of a name each, in place of one."""

    def call_later(self, delay: float, call: Any, *words: object) -> Any:
        return super().call_later(delay, lambda: call(*words))


def idling(reactor: FakeReactor, flows: Flows) -> IdleSweeps:
    """Sweeps for the flows of one forward: its idle timeout is 8 s."""
    limits = Limits(idle_timeout=8.0, half_closed_timeout=0.0)
    forward = Forward(Endpoint("::", 80), Endpoint("127.0.0.1", 80), limits=limits)
    for flow in flows.live:
        cast("Any", flow).forward = forward
    sweeps = IdleSweeps(cast("Reactor", reactor), flows)
    sweeps.keep([forward])
    return sweeps


def test_an_idle_flow_that_cannot_be_ended() -> None:
    flows, reactor = Flows(10), Timers()
    some = [Unlucky(flows), FakeFlow(flows), FakeFlow(flows)]
    idling(reactor, flows)
    reactor.advance(11)
    assert {tuple(flow.ends) for flow in some} == {(End.IDLE,), (End.INTERNAL_ERROR,)}
    assert reactor.armed is not None, "the sweep goes on"


def test_a_sweep_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memory for its table, say. The next one finds who idles."""
    flows, reactor = Flows(10), Timers()
    flow = FakeFlow(flows)
    idling(reactor, flows)
    with monkeypatch.context() as patch:
        patch.setattr(idle.IdleSweep, "sweep", no_memory)
        with pytest.raises(MemoryError):
            reactor.advance(2)
    reactor.advance(11)
    assert flow.ends == [End.IDLE]


def test_a_dead_peer_among_flows_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_peers, "silence_of", lambda _: SILENCE)
    flows, reactor = Flows(10), FakeReactor()
    unlucky, dead = Unlucky(flows), FakeFlow(flows)
    dead.descriptors = lambda: (1,)  # type: ignore[method-assign]
    peers = DeadPeers(cast("Reactor", reactor), flows)
    for _ in range(2):
        peers.look([unlucky, dead])
        reactor.now += SILENCE
    assert (unlucky.ends, dead.ends) == ([End.INTERNAL_ERROR], [End.DEAD_PEER])


def test_no_memory_for_the_list_of_all_flows() -> None:
    flows, reactor = Flows(10), FakeReactor()
    peers = DeadPeers(cast("Reactor", reactor), flows)
    begin, peers._begin = peers._begin, no_memory  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        reactor.advance(ROUND)
    assert reactor.armed is not None
    peers._begin = begin  # type: ignore[method-assign]
    reactor.advance(ROUND)
    assert reactor.armed is not None


async def test_all_are_reset_but_one(reported: list[str]) -> None:
    flows = Flows(10)
    some = [FakeFlow(flows), Unlucky(flows), FakeFlow(flows)]
    flows.abort_all(End.CUT)
    assert sorted(map(len, (flow.ends for flow in some))) == [0, 1, 1]
    assert reported == ["MemoryError()"]


# ---- ports ----------------------------------------------------------------------------------


def test_a_paused_port_that_cannot_be_watched_yet(logged: Logged) -> None:
    """epoll_ctl(2) needs memory. The port stays on the list, and has its turn."""
    stage = Ports(logged)
    flows = stage.fill(stage.busy, 800)
    stage.shares.pause(stage.busy)
    resume, stage.gate.resume_port = stage.gate.resume_port, no_memory  # type: ignore[method-assign]
    flows[0].abort(End.CLOSED)
    with pytest.raises(MemoryError):
        stage.reactor.advance(1.0)
    stage.gate.resume_port = resume  # type: ignore[method-assign]
    stage.reactor.advance(2.0)
    assert stage.gate.paused == []


def test_a_flow_that_cannot_give_way(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Ports(logged)
    flows = stage.fill(stage.busy, 1000)
    stage.other.queue = 10
    reset = FlowOfPort.abort

    def fail(flow: FlowOfPort, end: End, detail: str = "") -> None:
        if flow is flows[-1] and end is End.EVICTED:
            raise MemoryError
        reset(flow, end, detail)

    monkeypatch.setattr(FlowOfPort, "abort", fail)
    assert stage.make_room(stage.other)
    assert stage.busy.counters.ends == {End.EVICTED: 9, End.INTERNAL_ERROR: 1}


def entrance_of(running: Running) -> Listener:
    """The one listening socket."""
    [one] = running.relay.listeners
    assert isinstance(one, Listener)
    return one


async def test_a_listener_that_cannot_be_watched_is_watched_later() -> None:
    """For want of memory the gate pauses, and opens again; the first time for one that paused."""
    async with target(echo) as behind, relaying(behind) as running:
        entrance = entrance_of(running)
        gate = entrance._gate
        gate._shut(0.0, shed=False)
        watch = running.relay.reactor.watch
        failed: list[int] = []

        def fail_twice(fd: int, mask: int, handler: Any) -> None:
            if handler is entrance and len(failed) < 2:
                failed.append(fd)
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            watch(fd, mask, handler)

        running.relay.reactor.watch = fail_twice  # type: ignore[method-assign]
        reader, writer = await running.connect()
        writer.write(b"hello")
        assert await asyncio.wait_for(reader.readexactly(5), 20) == b"hello"
        assert len(failed) == 2
        writer.close()


async def test_the_spare_descriptor_is_ours_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Shedding closes it first: closed twice it would be somebody else's."""
    async with target(echo) as behind, relaying(behind) as running:
        gate = entrance_of(running)._gate
        with monkeypatch.context() as patch:
            patch.setattr(Listener, "shed", no_memory)
            patch.setattr(listener, "_spare", lambda: -1)  # as at EMFILE
            with pytest.raises(MemoryError):
                gate.shed([entrance_of(running)])
        mine = os.open("/dev/null", os.O_RDONLY)
        gate.shed([entrance_of(running)])
        os.fstat(mine)
        os.close(mine)


@pytest.mark.usefixtures("reported")
async def test_a_gate_that_fails_to_shed_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "PATIENCE", 0.001)
    async with target(echo) as behind, relaying(behind) as running:
        gate = entrance_of(running)._gate
        failed: list[int] = []

        def fail_once(_: object) -> None:
            if not failed:
                failed.append(1)
                raise MemoryError

        monkeypatch.setattr(gate, "shed", fail_once)
        gate._shut(0.0, shed=True)
        await until(lambda: failed)
        reader, writer = await running.connect()
        writer.write(b"hello")
        assert await asyncio.wait_for(reader.readexactly(5), 20) == b"hello"
        writer.close()


async def test_a_queue_that_cannot_be_taken_is_no_port_that_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A forward is closed, and nobody can be accepted just now: its port is free all the same."""
    async with target(echo) as behind, relaying(behind) as running:
        entrance = entrance_of(running)
        monkeypatch.setattr(entrance, "accept", no_memory)
        entrance._gate.remove(entrance, take_queue=True)
        assert entrance.fileno() < 0
        running.relay._ports.clear()


# ---- datagrams ------------------------------------------------------------------------------


async def test_a_session_that_fails_to_expire(reported: list[str]) -> None:
    reactor = FakeReactor()
    table = Sessions(cast("Reactor", reactor), TIMEOUT, 100)
    unlucky, lucky = FakeSession(table), FakeSession(table)
    unlucky.close = no_memory  # type: ignore[method-assign]
    reactor.advance(TIMEOUT / 2)
    late = FakeSession(table)
    reactor.advance(2 * TIMEOUT)
    assert (lucky.end, late.end, len(table)) == ("expired", "expired", 0)
    assert reported == ["MemoryError()"]


async def test_a_session_gives_its_descriptor_back_whatever_fails(
    monkeypatch: pytest.MonkeyPatch, reported: list[str]
) -> None:
    with peer("127.0.0.1", answer=echo_datagrams) as behind, peer("::1") as one, peer("::1") as two:
        async with relaying(behind.endpoint, limits=Limits(drain_timeout=0)) as running:
            for each in (one, two):
                each.send(b"hello", ("::1", running.port))
                await each.receive()
            both = sessions(running)
            monkeypatch.setattr(Counters, "flow_ended", no_memory)
            fds = [session.fd for session in both]
            running.sessions.close_all(End.STOPPED)
            for fd in fds:
                with pytest.raises(OSError, match="Bad file descriptor"):
                    os.fstat(fd)
    assert reported == ["MemoryError()"] * 2


async def test_a_session_that_cannot_move_leaks_no_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with peer("127.0.0.1", answer=echo_datagrams) as behind, peer("::1") as one:
        async with relaying(behind.endpoint, limits=Limits(drain_timeout=0)) as running:
            one.send(b"hello", ("::1", running.port))
            await one.receive()
            [session] = sessions(running)
            fd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()
            with monkeypatch.context() as patch:
                patch.setattr(running.relay.reactor, "watch", no_memory)
                with pytest.raises(MemoryError):
                    session._move_to(session.target, fd, session.address)
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
            one.send(b"still", ("::1", running.port))
            assert (await one.receive())[0] == b"still"


# ---- targets --------------------------------------------------------------------------------


async def test_all_who_wait_for_a_name_are_told(reported: list[str]) -> None:
    loop = asyncio.get_running_loop()
    reactor = Reactor(loop)
    resolver = Resolver(lambda _: [(socket.AF_INET, ("127.0.0.1", 0))])
    name = DirectTarget(Endpoint("somewhere.test", 80), reactor, resolver)
    told: list[str] = []
    assert name.refresh(no_memory)
    assert name.refresh(lambda: told.append("waits"))
    await until(lambda: told)
    name._resolved_at -= 3600
    assert name.renew(no_memory)
    assert name.renew(lambda: told.append("is impatient"))
    await until(lambda: len(told) == 2)
    assert told == ["waits", "is impatient"]
    assert reported == ["MemoryError()"] * 2
    reactor.close()


async def test_what_ends_a_question_is_reported(reported: list[str]) -> None:
    def nonsense(_: str) -> Any:
        raise UnicodeError("label too long")

    reactor = Reactor(asyncio.get_running_loop())
    name = DirectTarget(Endpoint("somewhere.test", 80), reactor, Resolver(nonsense))
    told: list[str] = []
    assert name.refresh(lambda: told.append("no answer"))
    await until(lambda: reported)
    assert told == ["no answer"]
    assert "label too long" in reported[0]
    reactor.close()


# ---- namespaces and the store ---------------------------------------------------------------


@pytest.fixture
def namespaces(logged: Logged) -> tuple[Namespaces, TurnedByHand]:
    reactor = TurnedByHand()
    return Namespaces(cast("Reactor", reactor), logged.log), reactor


class Entered:
    """A namespace that cannot be asked or left."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.asked = self.closed = 0
        self.policy = self.namespace = self

    def is_gone(self) -> bool:
        self.asked += 1
        if self.fails:
            raise MemoryError
        return False

    def close(self) -> None:
        self.closed += 1
        if self.fails:
            raise MemoryError


async def test_a_namespace_that_fails(
    namespaces: tuple[Namespaces, TurnedByHand], reported: list[str]
) -> None:
    """The others are looked at again and again, and their rules go at the end."""
    ops, reactor = namespaces
    ops.join("one")
    good, bad = Entered(fails=False), Entered(fails=True)
    cast("Any", ops)._entered = {"bad": bad, "good": good}
    reactor.advance(reactor.now + 3.5 * LOOK_INTERVAL)
    assert (bad.asked, good.asked) == (3, 3)
    ops.close()
    assert (bad.closed, good.closed) == (1, 1)
    assert reported == ["MemoryError()"] * 4


def test_a_store_that_cannot_be_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reactor = TurnedByHand()
    store = PseudoStore(str(tmp_path / "store"))
    store.write_seen_from(cast("Any", reactor))
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_seen", no_memory)
        with pytest.raises(MemoryError):
            reactor.advance(reactor.now + WRITE_SEEN_EVERY)
    assert len(reactor.armed) == 1
    store.close()
    assert reactor.armed == []


# ---- the end --------------------------------------------------------------------------------


async def test_what_is_held_in_namespaces_is_given_back_whatever_fails(
    monkeypatch: pytest.MonkeyPatch, reported: list[str]
) -> None:
    async with target(echo) as behind:
        async with relaying(behind) as running:
            closed: list[str] = []
            relay = running.relay
            close = relay.targets.close

            def note() -> None:
                closed.append("targets")
                close()

            monkeypatch.setattr(relay.targets, "close", note)
            for part in (relay._gate, relay.resources, relay._idle):
                monkeypatch.setattr(part, "close", no_memory)
        assert closed == ["targets"]
        assert reported == ["MemoryError()"] * 4
        with pytest.raises(ValueError, match="closed epoll"):
            relay.reactor._epoll.poll(0, 1)
