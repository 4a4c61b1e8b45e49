"""Time limits, on a loop and a clock that the test turns by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.attempting import Attempting
from v6fwd.relay.deadlines import Deadlines
from v6fwd.relay.reactor import Reactor


class FakeTimer:
    """What call_later gives."""

    def __init__(self, due: float, callback: Callable[[], object]) -> None:
        self.due = due
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeReactor(Attempting):
    """Loop and clock in one; time passes in `advance` alone."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[FakeTimer] = []
        self.told: list[Exception] = []

    @property
    def loop(self) -> FakeReactor:
        return self

    def clock(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object]) -> FakeTimer:
        timer = FakeTimer(self.now + delay, callback)
        self.timers.append(timer)
        return timer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.told.append(context["exception"])

    @property
    def armed(self) -> list[FakeTimer]:
        """The timers that are still to fire."""
        self.timers = [timer for timer in self.timers if not timer.cancelled]
        return self.timers

    def advance(self, to: float) -> None:
        """Let time pass until `to` and fire what falls due, in order."""
        while due := [timer for timer in self.armed if timer.due <= to]:
            first = min(due, key=lambda timer: timer.due)
            self.timers.remove(first)
            self.now = max(self.now, first.due)
            first.callback()
        self.now = to


class Expired(list[Any]):
    """What expired, and when."""

    def __init__(self, reactor: FakeReactor) -> None:
        super().__init__()
        self._reactor = reactor

    def __call__(self, item: str) -> None:
        self.append((item, self._reactor.now))


@dataclass(frozen=True)
class Item:
    """Has a time limit, and a name to be known by."""

    name: str
    expire: Callable[[str], None] = field(compare=False)

    def expired(self) -> None:
        """Tell the test."""
        self.expire(self.name)

    def on_exception(self, error: Exception) -> None:
        """Tell the test of that, too."""
        self.expire(f"{self.name}: {error!r}")


class Named:
    """Deadlines on a loop of ours, for items that are known by name."""

    def __init__(self, reactor: FakeReactor, seconds: float, expire: Callable[[str], None]) -> None:
        self._limit = Deadlines(cast("Reactor", reactor), seconds)
        self._expire = expire
        self.close = self._limit.close

    def __len__(self) -> int:
        return len(self._limit)

    def add(self, name: str) -> None:
        """Start the clock of an item."""
        self._limit.add(Item(name, self._expire))

    def discard(self, name: str) -> None:
        """Stop it."""
        self._limit.discard(Item(name, self._expire))


@pytest.fixture
def reactor() -> FakeReactor:
    return FakeReactor()


@pytest.fixture
def expired(reactor: FakeReactor) -> Expired:
    return Expired(reactor)


@pytest.fixture
def limit(reactor: FakeReactor, expired: Expired) -> Iterator[Named]:
    one = Named(reactor, 5.0, expired)
    yield one
    one.close()
    assert reactor.armed == []


def test_each_item_expires_in_its_time(
    reactor: FakeReactor, limit: Named, expired: Expired
) -> None:
    limit.add("a")
    reactor.advance(102)
    limit.add("b")
    assert len(limit) == 2
    reactor.advance(104.999)
    assert expired == []
    reactor.advance(120)
    assert expired == [("a", 105.0), ("b", 107.0)]
    assert len(limit) == 0


def test_one_timer_serves_all(reactor: FakeReactor, limit: Named) -> None:
    for name in "abcdef":
        limit.add(name)
    assert len(reactor.armed) == 1


def test_no_timer_without_items(reactor: FakeReactor, limit: Named) -> None:
    limit.add("a")
    reactor.advance(110)
    assert reactor.armed == []


def test_an_idle_limit_starts_again(reactor: FakeReactor, limit: Named, expired: Expired) -> None:
    limit.add("a")
    reactor.advance(110)
    limit.add("b")
    reactor.advance(120)
    assert expired == [("a", 105.0), ("b", 115.0)]


def test_discarded_items_do_not_expire(
    reactor: FakeReactor, limit: Named, expired: Expired
) -> None:
    for name in "abc":
        limit.add(name)
    limit.discard("a")
    limit.discard("a")
    limit.discard("never added")
    limit.discard("c")
    reactor.advance(110)
    assert expired == [("b", 105.0)]


def test_a_late_timer_expires_all_that_are_due(
    reactor: FakeReactor, limit: Named, expired: Expired
) -> None:
    """A busy process: the timer fires when all three are over."""
    for name, at in (("a", 100), ("b", 101), ("c", 102)):
        reactor.now = at
        limit.add(name)
    reactor.now = 107
    reactor.advance(107)
    assert expired == [("a", 107), ("b", 107), ("c", 107)]


def test_an_early_timer_is_armed_again(
    reactor: FakeReactor, limit: Named, expired: Expired
) -> None:
    """The loop's clock and ours are not the same: a timer may come a little before its time."""
    limit.add("a")
    reactor.timers.pop().callback()
    assert expired == []
    reactor.advance(110)
    assert expired == [("a", 105.0)]


def test_a_limit_of_zero_is_none(reactor: FakeReactor, expired: Expired) -> None:
    limit = Named(reactor, 0.0, expired)
    limit.add("a")
    reactor.advance(1e6)
    assert (len(limit), reactor.timers, expired) == (0, [], [])
    limit.discard("a")
    limit.close()


def test_closed_means_forgotten(reactor: FakeReactor, limit: Named, expired: Expired) -> None:
    limit.add("a")
    limit.close()
    reactor.advance(110)
    assert (len(limit), expired) == (0, [])


def test_what_expires_may_discard_its_neighbour(reactor: FakeReactor) -> None:
    """Both are due in one sweep; the first takes the second with it."""
    gone = []

    def expire(item: str) -> None:
        gone.append(item)
        those.discard("b")

    those = Named(reactor, 5.0, expire)
    for name in "abc":
        those.add(name)
    reactor.advance(110)
    assert gone == ["a", "c"]


def test_what_expires_may_close_all(reactor: FakeReactor) -> None:
    gone = []

    def expire(item: str) -> None:
        gone.append(item)
        those.close()

    those = Named(reactor, 5.0, expire)
    for name in "abc":
        those.add(name)
    reactor.advance(110)
    assert (gone, len(those), reactor.armed) == (["a"], 0, [])


def test_what_expires_may_start_anew(reactor: FakeReactor) -> None:
    gone = []

    def expire(item: str) -> None:
        gone.append((item, reactor.now))
        if item == "a":
            those.add("again")

    those = Named(reactor, 5.0, expire)
    those.add("a")
    those.add("b")
    reactor.advance(120)
    assert gone == [("a", 105.0), ("b", 105.0), ("again", 110.0)]
    assert reactor.armed == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 4), st.booleans()), max_size=20))
def test_nothing_expires_early_and_nothing_stays(steps: list[tuple[float, bool]]) -> None:
    reactor = FakeReactor()
    expired = Expired(reactor)
    limit = Named(reactor, 5.0, expired)
    added = {}
    kept = set()
    for number, (gap, stays) in enumerate(steps):
        reactor.advance(reactor.now + gap)
        name = str(number)
        limit.add(name)
        added[name] = reactor.now
        if stays:
            kept.add(name)
        else:
            limit.discard(name)
    reactor.advance(reactor.now + 10)
    assert {name for name, _ in expired} == kept
    for name, at in expired:
        assert 5.0 - 1e-6 <= at - added[name] <= 5.0 + 0.002
    assert reactor.armed == []


def test_on_a_real_loop() -> None:
    """The same calls suit asyncio's own loop."""

    async def main() -> list[str]:
        gone: asyncio.Queue[str] = asyncio.Queue()
        reactor = Reactor(asyncio.get_running_loop())
        limit = Deadlines(reactor, 0.01)
        limit.add(Item("a", gone.put_nowait))
        limit.add(Item("b", gone.put_nowait))
        try:
            return [await gone.get(), await gone.get()]
        finally:
            limit.close()
            reactor.close()

    assert asyncio.run(main()) == ["a", "b"]


def test_who_raises_takes_nobody_along(reactor: FakeReactor) -> None:
    expired: list[str] = []

    def expire(name: str) -> None:
        if name in "ac":
            raise MemoryError
        expired.append(name)

    limit = Named(reactor, 5.0, expire)
    for name in "abc":
        limit.add(name)
    reactor.advance(105)
    assert expired == ["a: MemoryError()", "b", "c: MemoryError()"]
    assert reactor.armed == []
