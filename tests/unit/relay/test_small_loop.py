"""The event loop of a relay without asyncio: what is called when, and what an exception costs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.support.logged import Logged
from v6fwd.relay.life import small_loop
from v6fwd.relay.life.small_loop import LONGEST, SmallLoop


class Clock:
    """The module `time` for a loop: it stands still unless told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(small_loop, "time", made)
    return made


@pytest.fixture
def log() -> Iterator[Logged]:
    logged = Logged()
    yield logged
    logged.close()


@pytest.fixture
def loop(log: Logged, clock: Clock) -> Iterator[SmallLoop]:  # noqa: ARG001
    made = SmallLoop(log.log)
    yield made
    made.close()


def test_calls_are_made_in_their_order(loop: SmallLoop, clock: Clock) -> None:
    made: list[str] = []
    loop.call_later(2, made.append, "second")
    loop.call_later(1, made.append, "first")
    loop.call_later(1, made.append, "first, too")
    loop.call_later(3, made.append, "later")
    clock.now += 2
    loop.call_soon(made.append, "soon")
    loop.call_soon(loop.stop)
    loop.run()
    assert made == ["first", "first, too", "second", "soon"]


def test_what_is_cancelled_is_not_called(loop: SmallLoop, clock: Clock) -> None:
    made: list[str] = []
    loop.call_later(1, made.append, "cancelled").cancel()
    loop.call_soon(made.append, "cancelled").cancel()
    clock.now += 1
    loop.call_soon(loop.stop)
    loop.run()
    assert made == []


def test_a_call_that_comes_while_calls_are_made_waits_for_the_next_turn(loop: SmallLoop) -> None:
    """Descriptors have a turn between: a call that calls itself again starves nobody."""
    made: list[int] = []
    reader, writer = os.pipe()
    os.write(writer, b"x")
    loop.add_reader(reader, loop.stop)

    def again() -> None:
        made.append(1)
        loop.call_soon(again)

    loop.call_soon(again)
    loop.run()
    assert len(made) <= 2
    os.close(reader)
    os.close(writer)


def test_an_exception_costs_one_call(loop: SmallLoop, log: Logged, clock: Clock) -> None:
    made: list[str] = []
    for call in (loop.call_soon, lambda *words: loop.call_later(0, *words)):
        call(made.index, "nothing")  # ValueError
        call(made.append, "next")
    loop.call_soon(loop.stop)
    clock.now += 1
    loop.run()
    assert made == ["next", "next"]
    assert [text[:27] for _, text in log.lines()] == ["internal error: ValueError("] * 2


def test_a_reader_that_is_removed_is_not_called(loop: SmallLoop) -> None:
    made: list[str] = []
    pipes = [os.pipe() for _ in range(2)]
    for _, writer in pipes:
        os.write(writer, b"x")

    def remove_both() -> None:
        made.append("read")
        for reader, _ in pipes:
            loop.remove_reader(reader)
        loop.stop()

    for reader, _ in pipes:
        loop.add_reader(reader, remove_both)
    loop.run()
    assert made == ["read"]
    for pipe in pipes:
        for fd in pipe:
            os.close(fd)


def test_a_signal_is_a_call_with_its_words(loop: SmallLoop) -> None:
    numbers = [signal.SIGUSR1, signal.SIGUSR2]
    before = [signal.getsignal(number) for number in numbers]
    made: list[str] = []

    def heard(word: str) -> None:
        made.append(word)
        if len(made) == len(numbers):
            loop.stop()

    try:
        for number in numbers:
            loop.add_signal_handler(number, heard, number.name)
        for number in numbers:
            loop.call_soon(signal.raise_signal, number)
        loop.run()
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    assert sorted(made) == ["SIGUSR1", "SIGUSR2"]


def test_the_pause(loop: SmallLoop, clock: Clock) -> None:
    assert loop._pause() == LONGEST
    loop.call_later(2 * LONGEST, loop.stop)
    assert loop._pause() == LONGEST
    loop.call_later(5, loop.stop)
    assert loop._pause() == 5
    clock.now += 6
    assert loop._pause() == 0
    clock.now -= 6
    loop.call_soon(loop.stop)
    assert loop._pause() == 0


def test_without_memory_it_goes_on(loop: SmallLoop, log: Logged) -> None:
    """Neither the list of what can be read, nor the line in the log can be made."""
    made: list[str] = []
    poll, failures = loop._epoll.poll, [MemoryError(), MemoryError()]

    class Epoll:
        def poll(self, seconds: float) -> list[tuple[int, int]]:
            if failures:
                raise failures.pop()
            return poll(seconds)

        def close(self) -> None:
            """The real one is closed below."""

    def fail(*_: object, **__: object) -> None:
        made.append("logged")
        raise MemoryError

    real, loop._epoll = loop._epoll, Epoll()  # type: ignore[assignment]
    log.log.limited = fail  # type: ignore[method-assign]
    loop.call_soon(made.index, "nothing")  # ValueError
    loop.call_soon(made.append, "next")
    loop.call_later(0, loop.stop)
    loop.run()
    assert sorted(made) == ["logged", "next"]
    real.close()
