"""The reactor: one batch of events, descriptors that are closed in the middle of it."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Iterator

import pytest

from tests.support.relaying import until
from v6fwd.relay.reactor import HOPELESS_AFTER, RESUME_TIME, Handler, Reactor

Ends = tuple[socket.socket, socket.socket]


class Noted:
    """A handler that writes down what comes."""

    def __init__(self) -> None:
        self.masks: list[int] = []
        self.defects: list[Exception] = []

    def on_event(self, mask: int) -> None:
        """See Handler."""
        self.masks.append(mask)

    def on_exception(self, error: Exception) -> None:
        """See Handler."""
        self.defects.append(error)


class Replacing(Noted):
    """Closes another descriptor at the first event and puts a new, quiet one in its place."""

    def __init__(self, reactor: Reactor, quiet: socket.socket) -> None:
        super().__init__()
        self._reactor = reactor
        self._quiet = quiet
        self.victim = -1
        self.new = -1
        self.newcomer = Noted()

    def on_event(self, mask: int) -> None:
        """See Handler."""
        super().on_event(mask)
        if self.victim >= 0:
            self._reactor.close_fd(self.victim)
            self.new = os.dup(self._quiet.fileno())
            self._reactor.watch(self.new, select.EPOLLIN | select.EPOLLET, self.newcomer)
            self.victim = -1


class Failing(Noted):
    """Raises at every event."""

    def on_event(self, mask: int) -> None:
        """See Handler."""
        super().on_event(mask)
        raise MemoryError


@pytest.fixture
def pairs() -> Iterator[list[Ends]]:
    """Three connected pairs."""
    made = [socket.socketpair() for _ in range(3)]
    yield made
    for ends in made:
        for end in ends:
            end.close()


def gaps_below(most: int) -> Iterator[int]:
    """Take the free descriptors below `most`: a number closed now is the next to be used."""
    while (fd := os.open(os.devnull, os.O_RDONLY)) < most:
        yield fd
    os.close(fd)


async def test_stale_event_does_not_meet_a_new_descriptor(pairs: list[Ends]) -> None:
    """Both are ready in one batch; whichever comes first closes the other."""
    reactor = Reactor(asyncio.get_running_loop())
    ready = [os.dup(pairs[0][0].fileno()), os.dup(pairs[1][0].fileno())]
    handlers = [Replacing(reactor, pairs[2][0]) for _ in ready]
    for own, other in ((0, 1), (1, 0)):
        handlers[own].victim = ready[other]
        reactor.watch(ready[own], select.EPOLLIN | select.EPOLLET, handlers[own])
    gaps = list(gaps_below(max(ready)))
    for ends in pairs[:2]:
        ends[1].send(b"x")
    await until(lambda: handlers[0].masks or handlers[1].masks)
    first = handlers[0] if handlers[0].masks else handlers[1]
    assert not first.newcomer.masks
    pairs[2][1].send(b"y")
    await until(lambda: first.newcomer.masks)
    assert first.newcomer.masks == [select.EPOLLIN]
    assert len(handlers[0].masks) + len(handlers[1].masks) == 1
    reactor.close()
    for fd in (first.new, ready[handlers.index(first)], *gaps):
        os.close(fd)


async def test_defect_costs_nobody_else(pairs: list[Ends]) -> None:
    reactor = Reactor(asyncio.get_running_loop())
    handlers: list[Noted] = [Failing(), Noted(), Failing()]
    for (end, _), handler in zip(pairs, handlers, strict=True):
        reactor.watch(end.fileno(), select.EPOLLIN | select.EPOLLET, handler)
    for _, other in pairs:
        other.send(b"x")
    await until(lambda: all(handler.masks for handler in handlers))
    assert [len(handler.defects) for handler in handlers] == [1, 0, 1]
    reactor.close()


async def test_unwatched_is_quiet_and_open(pairs: list[Ends]) -> None:
    reactor = Reactor(asyncio.get_running_loop())
    (end, other), (second, trigger), _ = pairs
    quiet, loud = Noted(), Noted()
    reactor.watch(end.fileno(), select.EPOLLIN, quiet)
    reactor.watch(second.fileno(), select.EPOLLIN | select.EPOLLET, loud)
    reactor.unwatch(end.fileno())
    other.send(b"x")
    trigger.send(b"x")
    await until(lambda: loud.masks)
    assert not quiet.masks
    assert end.recv(1) == b"x"
    reactor.close()


async def test_the_rest_of_an_event_goes_to_the_new_handler(pairs: list[Ends]) -> None:
    """What an edge told the old one is told to nobody again. Writable alone leaves no rest."""
    reactor = Reactor(asyncio.get_running_loop())
    fd, old, new = pairs[0][0].fileno(), Noted(), Noted()
    reactor.watch(fd, select.EPOLLIN | select.EPOLLET, old)
    reactor.change_handler(fd, new)
    for mask in (select.EPOLLOUT, select.EPOLLOUT | select.EPOLLIN, select.EPOLLERR):
        reactor.pass_on(fd, mask)
    assert (old.masks, new.masks) == ([], [select.EPOLLOUT | select.EPOLLIN, select.EPOLLERR])
    reactor.unwatch(fd)
    reactor.pass_on(fd, select.EPOLLIN)
    assert len(new.masks) == 2
    reactor.close()


class Helpless:
    """Fails at its event, and `failures` times when it is told to clean up."""

    def __init__(self, failures: float) -> None:
        self.failures = failures
        self.asked = 0

    def on_event(self, mask: int) -> None:  # noqa: ARG002
        raise MemoryError

    def on_exception(self, error: Exception) -> None:  # noqa: ARG002
        self.asked += 1
        if self.asked <= self.failures:
            raise MemoryError


class Heard:
    """Notes that it was told of an event."""

    def __init__(self) -> None:
        self.masks: list[int] = []

    def on_event(self, mask: int) -> None:
        self.masks.append(mask)

    def on_exception(self, error: Exception) -> None:
        raise error


EDGE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


async def test_one_that_cannot_even_clean_up_costs_the_batch_nothing() -> None:
    """The other clients left in the same batch: no second edge tells of it."""
    reactor = Reactor(asyncio.get_running_loop())
    pairs = [socket.socketpair() for _ in range(20)]
    failing, others = Helpless(2), [Heard() for _ in pairs[1:]]
    handlers: list[Handler] = [failing, *others]
    for (ours, theirs), handler in zip(pairs, handlers, strict=True):
        reactor.watch(ours.fileno(), EDGE, handler)
        theirs.close()
    await until(lambda: failing.asked == 3)
    assert all(other.masks for other in others)
    reactor.close()
    for ours, _ in pairs:
        ours.close()


async def test_a_reactor_without_hope_says_so() -> None:
    """Not before its time, and not once memory is there again."""
    now = [100.0]
    reactor = Reactor(asyncio.get_running_loop(), clock=lambda: now[0])
    hopeless: list[bool] = []
    reactor.on_hopeless = lambda: hopeless.append(True)
    ours, theirs = socket.socketpair()
    failing = Helpless(float("inf"))
    reactor.watch(ours.fileno(), EDGE, failing)
    theirs.close()
    await until(lambda: failing.asked > 1)
    assert not hopeless
    now[0] += HOPELESS_AFTER + 1
    await until(lambda: hopeless)
    failing.failures = 0
    asked = failing.asked
    await until(lambda: failing.asked > asked)
    hopeless.clear()
    now[0] += HOPELESS_AFTER + 1
    reactor.resume_later(failing_once := Resuming())
    await until(lambda: failing_once.resumed)
    assert not hopeless
    reactor.close()
    ours.close()


class Resuming(Heard):
    """Has its turn."""

    resumed = False

    def resume(self) -> None:
        self.resumed = True


class Busy(Heard):
    """Always has more to do, which takes its time."""

    def __init__(
        self, reactor: Reactor, now: list[float], turn: float, order: list[object]
    ) -> None:
        super().__init__()
        self._reactor, self._now, self._turn, self._order = reactor, now, turn, order

    def on_event(self, mask: int) -> None:
        super().on_event(mask)
        self._now[0] += self._turn
        self._order.append("event")

    def resume(self) -> None:
        self._now[0] += self._turn
        self._order.append(self)
        if len(self._order) < 60:
            self._reactor.resume_later(self)


@pytest.mark.parametrize(("turn", "most"), [(1.1 * RESUME_TIME, 1), (0.3 * RESUME_TIME, 4)])
async def test_an_event_waits_for_one_turn_not_for_one_of_each_busy_one(
    turn: float, most: int
) -> None:
    """And the busy ones still have their turns in order."""
    now, order = [100.0], list[object]()
    reactor = Reactor(asyncio.get_running_loop(), clock=lambda: now[0])
    ours, theirs = socket.socketpair()
    reactor.watch(ours.fileno(), EDGE, Busy(reactor, now, 0.0, order))
    busy = [Busy(reactor, now, turn, order) for _ in range(10)]
    first = busy[0].resume

    def then_somebody_asks() -> None:
        theirs.send(b"x")
        first()

    busy[0].resume = then_somebody_asks  # type: ignore[method-assign]
    for one in busy:
        reactor.resume_later(one)
    await until(lambda: len(order) >= 60)
    turns = [one for one in order if one != "event"]
    assert turns == (busy * 8)[: len(turns)]
    assert order.index("event") == most
    reactor.close()
    ours.close()
    theirs.close()


async def test_busy_ones_have_as_long_as_the_events_of_their_round_took() -> None:
    """However many events come, they do not keep those from their turns."""
    now, order = [100.0], list[object]()
    reactor = Reactor(asyncio.get_running_loop(), clock=lambda: now[0])
    pairs = [socket.socketpair() for _ in range(3)]
    for ours, theirs in pairs:
        reactor.watch(ours.fileno(), EDGE, Busy(reactor, now, 1.1 * RESUME_TIME, order))
        theirs.send(b"x")
    busy = [Busy(reactor, now, 1.2 * RESUME_TIME, order) for _ in range(10)]
    third = busy[2].resume

    def then_somebody_asks() -> None:
        pairs[0][1].send(b"x")
        third()

    busy[2].resume = then_somebody_asks  # type: ignore[method-assign]
    for one in busy:
        reactor.resume_later(one)
    await until(lambda: len(order) >= 60)
    assert order[:7] == ["event"] * 3 + list[object](busy[:3]) + ["event"]
    reactor.close()
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
