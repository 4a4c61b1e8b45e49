"""How long a relay waits at its end, for what, and that it says once that it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from tests.support.logged import Logged
from v6fwd.model import ClientIP, Forward, pair_up
from v6fwd.relay.ends import End
from v6fwd.relay.flows import Flow, Flows
from v6fwd.relay.life.alone import needs_no_asyncio
from v6fwd.relay.life.drain import UDP_GRACE, Drain
from v6fwd.relay.ports import Port


class Timer:
    """A call that is due later, unless it is cancelled."""

    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self.seconds = seconds
        self.call = call
        self.is_cancelled = False

    def cancel(self) -> None:
        """Do not call."""
        self.is_cancelled = True


class Loop:
    """An event loop whose timers are up when the test says so."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []

    def call_later(self, seconds: float, call: Callable[..., None], *words: object) -> Timer:
        """Keep the call."""
        self.timers.append(Timer(seconds, lambda: call(*words)))
        return self.timers[-1]

    def fire(self, seconds: float) -> None:
        """The timers of this length are up."""
        for timer in [each for each in self.timers if each.seconds == seconds]:
            if not timer.is_cancelled:
                timer.call()

    @property
    def pending(self) -> list[float]:
        """The lengths of those that are to come."""
        return [each.seconds for each in self.timers if not each.is_cancelled]


class OneFlow:
    """A flow that ends when it is told."""

    def __init__(self, flows: Flows) -> None:
        self._flows = flows
        self.ended: list[End] = []
        self.is_retired = False
        flows.add(cast(Flow, self))

    def retire(self) -> None:
        """A drain has begun."""
        self.is_retired = True

    def finish(self) -> None:
        """Its clients are done."""
        self._flows.remove(cast(Flow, self))

    def abort(self, end: End, detail: str = "") -> None:  # noqa: ARG002
        """It is reset."""
        self.ended.append(end)
        self.finish()


class UdpPort:
    """A port with sessions."""

    def __init__(self, sessions: int) -> None:
        self._sessions = sessions
        self.ended: list[End] = []

    def sessions(self) -> range:
        """As many as there are."""
        return range(self._sessions)

    def end(self, why: End) -> int:
        """Close them."""
        self.ended.append(why)
        return self._sessions


class Rig:
    """A drain of flows and sessions."""

    def __init__(self, log: Logged, flows: int, sessions: int) -> None:
        self.loop = Loop()
        self.flows = Flows(10)
        self.each = [OneFlow(self.flows) for _ in range(flows)]
        self.port = UdpPort(sessions)
        self.ended = 0
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.drain = Drain(loop, self.flows, [cast(Port, self.port)], log.log, self._has_ended)

    def _has_ended(self) -> None:
        self.ended += 1


@pytest.fixture
def log() -> Iterator[Logged]:
    logged = Logged()
    yield logged
    logged.close()


def test_with_nothing_to_wait_for_it_ends_at_once(log: Logged) -> None:
    rig = Rig(log, flows=0, sessions=0)
    rig.drain.begin(30)
    assert (rig.ended, rig.loop.timers, rig.port.ended) == (1, [], [End.STOPPED])


def test_it_ends_with_the_last_flow(log: Logged) -> None:
    rig = Rig(log, flows=2, sessions=0)
    rig.drain.begin(30)
    assert all(flow.is_retired for flow in rig.each)
    rig.each[0].finish()
    assert rig.ended == 0
    rig.each[1].finish()
    assert (rig.ended, rig.loop.pending) == (1, [])
    assert [flow.ended for flow in rig.each] == [[], []]
    assert [text for _, text in log.lines()] == ["draining: 2 flows, 30 s at most"]


def test_what_has_not_finished_is_reset(log: Logged) -> None:
    rig = Rig(log, flows=2, sessions=0)
    rig.drain.begin(30)
    rig.each[0].finish()
    rig.loop.fire(30)
    assert [flow.ended for flow in rig.each] == [[], [End.CUT]]
    assert (rig.ended, rig.loop.pending) == (1, [])
    assert [text for _, text in log.lines()][-1] == "reset 1 flow that had not finished"


def test_sessions_have_their_own_time(log: Logged) -> None:
    """The end of the last flow does not cut answers to datagrams that are on their way."""
    rig = Rig(log, flows=1, sessions=3)
    rig.drain.begin(30)
    assert sorted(rig.loop.pending) == [UDP_GRACE, 30]
    rig.each[0].finish()
    assert (rig.ended, rig.port.ended) == (0, [])
    rig.loop.fire(UDP_GRACE)
    assert (rig.ended, rig.port.ended) == (1, [End.STOPPED])


def test_a_short_drain_is_short_for_sessions(log: Logged) -> None:
    rig = Rig(log, flows=0, sessions=1)
    rig.drain.begin(0)
    assert rig.loop.pending == [0]


def test_in_a_hurry_nothing_is_waited_for(log: Logged) -> None:
    rig = Rig(log, flows=2, sessions=1)
    rig.drain.begin(30)
    rig.drain.hurry()
    assert [flow.ended for flow in rig.each] == [[End.CUT], [End.CUT]]
    assert (rig.ended, rig.port.ended, rig.loop.pending) == (1, [End.STOPPED], [])
    rig.drain.hurry()
    assert rig.ended == 1


def test_closed_it_leaves_no_timer(log: Logged) -> None:
    rig = Rig(log, flows=1, sessions=1)
    rig.drain.begin(30)
    rig.drain.close()
    rig.each[0].finish()
    assert (rig.ended, rig.loop.pending) == (0, [])


@pytest.mark.parametrize(
    ("target", "mode", "is_needed"),
    [
        ("127.0.0.1:80", ClientIP.NONE, False),
        ("127.0.0.1:80", ClientIP.X_FORWARDED_FOR, False),
        ("[2001:db8::1]:80", ClientIP.PROXY_V2, False),
        ("unix:/run/app.sock", ClientIP.NONE, False),
        ("web:80", ClientIP.NONE, True),
        ("docker:web:80", ClientIP.NONE, True),
        ("[fe80::1%lo]:80", ClientIP.NONE, True),
        ("127.0.0.1:80", ClientIP.TRANSPARENT, True),
    ],
)
def test_what_asyncio_is_needed_for(target: str, mode: ClientIP, is_needed: bool) -> None:
    [pair] = pair_up("[::]:8080", target)
    assert needs_no_asyncio([Forward(*pair, mode)]) is not is_needed
