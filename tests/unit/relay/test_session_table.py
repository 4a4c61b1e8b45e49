"""The table of UDP sessions: who goes when room is needed, and who when time has passed."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from tests.support.attempting import Attempting
from v6fwd.model import Address
from v6fwd.relay.counters import Counters
from v6fwd.relay.ends import End
from v6fwd.relay.udp.session_table import ANSWERED, ASKED, PROVEN, REPLIED, TICKS, Sessions

TIMEOUT = 90.0


class FakeTimer:
    """What call_later gives."""

    def cancel(self) -> None:
        """Nothing runs by itself here."""


class FakeReactor(Attempting):
    """A clock in the test's hands, and timers that fire when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.loop = self
        self.armed: Any = None

    def clock(self) -> float:
        """See Reactor."""
        return self.now

    def call_later(self, _: float, call: Any) -> FakeTimer:
        """See asyncio's loop."""
        self.armed = call
        return FakeTimer()

    def advance(self, seconds: float) -> None:
        """Let time pass in steps below a tick, and fire what is armed at each."""
        for _ in range(int(seconds * 8)):
            self.now += 0.125
            call, self.armed = self.armed, None
            if call is not None:
                call()


class FakeSession:
    """A session that remembers its end."""

    def __init__(
        self,
        table: Sessions,
        rank: int = ASKED,
        host: str = "192.0.2.1",
        port: Counters | None = None,
    ) -> None:
        self.counters = port or Counters()
        self.client = Address(ipaddress.ip_address(host).packed, 4711)
        self.rank = ASKED
        self.stamp = -1
        self.end = ""
        self._table = table
        table.make_room(port)
        self.counters.flows += 1
        table.add(self)
        if rank > ASKED:
            table.promote(self, rank)

    def close(self, end: str) -> None:
        """See Session."""
        self.end = end
        self.counters.ended += 1
        self._table.remove(self)

    def speak(self) -> None:
        """What a session does with every datagram."""
        if self.stamp != self._table.stamp:
            self._table.touch(self)


@pytest.fixture
def reactor() -> FakeReactor:
    return FakeReactor()


def table(reactor: FakeReactor, limit: int = 100) -> Sessions:
    return Sessions(reactor, TIMEOUT, limit)  # type: ignore[arg-type]


@pytest.mark.parametrize("rank", [ASKED, ANSWERED, REPLIED, PROVEN])
def test_expiry_is_never_early_and_little_late(reactor: FakeReactor, rank: int) -> None:
    sessions = table(reactor)
    one = FakeSession(sessions, rank)
    reactor.advance(TIMEOUT - 1)
    assert len(sessions) == 1
    reactor.advance(1 + 2 * TIMEOUT / TICKS)
    assert one.end == "expired"
    assert len(sessions) == 0


def test_speaking_postpones_it(reactor: FakeReactor) -> None:
    sessions = table(reactor)
    speaker, silent = FakeSession(sessions), FakeSession(sessions)
    for _ in range(20):
        reactor.advance(TIMEOUT / 2)
        speaker.speak()
    assert (speaker.end, silent.end) == ("", "expired")


def test_the_timer_rests_while_nobody_is_there(reactor: FakeReactor) -> None:
    sessions = table(reactor)
    FakeSession(sessions)
    reactor.advance(2 * TIMEOUT)
    assert reactor.armed is None
    again = FakeSession(sessions)
    reactor.advance(TIMEOUT - 1)
    assert not again.end


def test_the_least_recently_used_goes_first(reactor: FakeReactor) -> None:
    sessions = table(reactor, limit=3)
    first, second, third = (FakeSession(sessions) for _ in range(3))
    FakeSession(sessions)
    assert (first.end, second.end, third.end) == ("evicted", "", "")
    second.speak()
    FakeSession(sessions)
    assert (second.end, third.end) == ("", "evicted")


def test_lower_ranks_go_first(reactor: FakeReactor) -> None:
    sessions = table(reactor, limit=3)
    proven, answered, asked = (FakeSession(sessions, r) for r in (PROVEN, ANSWERED, ASKED))
    FakeSession(sessions, PROVEN, "198.51.100.1")
    assert (proven.end, answered.end, asked.end) == ("", "", "evicted")
    FakeSession(sessions, PROVEN)
    assert (proven.end, answered.end) == ("", "evicted")
    FakeSession(sessions)
    assert proven.end == "evicted"


@pytest.mark.parametrize("flood", [ASKED, ANSWERED, REPLIED])
def test_a_flood_competes_with_itself(reactor: FakeReactor, flood: int) -> None:
    """Forged sources, whether the target answers them or not."""
    sessions = table(reactor, limit=1000)
    regulars = [FakeSession(sessions, PROVEN) for _ in range(500)]
    for _ in range(5000):
        FakeSession(sessions, flood)
    assert not any(regular.end for regular in regulars)
    assert len(sessions) == 1000
    assert sessions.evicted == 4500


@pytest.mark.parametrize(
    "forged",
    [
        [f"198.51.{third}.{last}" for third in (100, 101) for last in range(200)],
        [f"2001:db8:0:{number:x}::1" for number in range(400)],
    ],
    ids=["ipv4", "ipv6"],
)
def test_a_proven_flood_from_few_networks_competes_with_itself(
    reactor: FakeReactor, forged: list[str]
) -> None:
    """The target answers anything, and the regulars say nothing meanwhile."""
    sessions = table(reactor, limit=200)
    regulars = [FakeSession(sessions, PROVEN) for _ in range(20)]
    alone = FakeSession(sessions, PROVEN, "2001:db8:1::1")
    for host in forged:
        FakeSession(sessions, PROVEN, host)
    assert not any(each.end for each in (*regulars, alone))
    assert len(sessions) == 200


def test_who_goes_first_in_a_crowded_network(reactor: FakeReactor) -> None:
    sessions = table(reactor, limit=20)
    busy, *idle = [FakeSession(sessions, PROVEN) for _ in range(20)]
    for number in range(10):
        busy.speak()
        FakeSession(sessions, PROVEN, f"198.51.{number}.1")
    assert not busy.end
    assert sum(bool(each.end) for each in idle) == 10


def test_unproven_sessions_have_a_bound_of_their_own(
    reactor: FakeReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("v6fwd.relay.udp.session_table.UNPROVEN_MOST", 50)
    sessions = table(reactor, limit=1000)
    for _ in range(200):
        FakeSession(sessions, ANSWERED)
    assert len(sessions) == 50


def test_an_active_session_survives_a_flood_in_its_rank(reactor: FakeReactor) -> None:
    sessions = table(reactor, limit=100)
    stream = FakeSession(sessions, ANSWERED)
    for number in range(1000):
        FakeSession(sessions, ANSWERED)
        if number % 50 == 0:
            stream.speak()
    assert not stream.end


def test_close_all(reactor: FakeReactor) -> None:
    sessions = table(reactor)
    every = [FakeSession(sessions, rank) for rank in (ASKED, ANSWERED, REPLIED, PROVEN)]
    assert [session.rank for session in sessions] == [ASKED, ANSWERED, REPLIED, PROVEN]
    assert sessions.close_all(End.STOPPED) == 4
    assert {session.end for session in every} == {"stopped"}
    assert not sessions.evict()


@pytest.mark.parametrize("rank", [ASKED, PROVEN])
def test_a_port_in_a_flood_pushes_out_its_own(reactor: FakeReactor, rank: int) -> None:
    """At four times what is free. A session of another port stays, though it is the oldest."""
    sessions, flooded = table(reactor, limit=100), Counters()
    other = FakeSession(sessions)
    flood = [FakeSession(sessions, rank, f"10.0.{number}.1", flooded) for number in range(250)]
    assert other.end == ""
    assert len(sessions) == 81
    assert [session.end for session in flood[-80:]] == [""] * 80


def test_a_kernel_without_room_takes_it_from_the_port_with_most(reactor: FakeReactor) -> None:
    sessions, busy, quiet = table(reactor, limit=100), Counters(), Counters()
    others = [FakeSession(sessions, port=quiet) for _ in range(3)]
    flood = [FakeSession(sessions, port=busy) for _ in range(10)]
    sessions.evict_for(busy)
    assert flood[0].end == "evicted"
    sessions.evict_for(quiet)
    assert [each.end for each in others] == ["evicted", "", ""], "the oldest of all"
    sessions.evict_for(Counters())
    assert others[1].end == "evicted"


def test_a_port_alone_uses_all_and_another_one_gets_in(reactor: FakeReactor) -> None:
    sessions, alone = table(reactor, limit=100), Counters()
    for _ in range(120):
        FakeSession(sessions, port=alone)
    assert len(sessions) == 100
    other = FakeSession(sessions)
    for _ in range(120):
        FakeSession(sessions, port=alone)
    assert other.end == ""
