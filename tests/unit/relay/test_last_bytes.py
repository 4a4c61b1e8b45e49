"""LastBytes alone: how long a survivor may take for what its peer had sent, and what it may say."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from v6fwd.relay.tcp.last_bytes import FIRST_LOOK, LAST_LOOK, PATIENCE, LastBytes, unsent_bytes
from v6fwd.relay.tcp.side import COPY_SIZE, Side

STEP = 0.01
"""Seconds of the test's clock at a time."""


class Flow:
    """The reactor and its time, and what was reported."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[SimpleNamespace] = []
        self.looks: list[float] = []
        self.reported: list[object] = []
        self.reactor: Any = SimpleNamespace(
            clock=lambda: self.now,
            loop=SimpleNamespace(call_later=self._call_later),
            attempt=lambda _, call: call(),
        )

    def _call_later(self, seconds: float, call: Callable[[], None]) -> SimpleNamespace:
        timer = SimpleNamespace(due=self.now + seconds, call=call)
        timer.cancel = lambda: self.timers.remove(timer)
        self.timers.append(timer)
        self.looks.append(seconds)
        return timer

    def pass_time(self, seconds: float, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Let time go by in steps, until something is reported."""
        until = self.now + seconds
        while self.now < until and not self.reported:
            self.now += STEP
            meanwhile()
            for timer in [timer for timer in self.timers if timer.due <= self.now]:
                self.timers.remove(timer)
                timer.call()

    def last_bytes_arrived(self, broken: Side) -> None:
        self.reported.append(broken)

    def on_exception(self, error: Exception) -> None:
        raise AssertionError(error)


class Scene:
    """A side that broke, and the socket of the one that is left."""

    def __init__(self) -> None:
        self.flow = Flow()
        self.survivor, ours = socket.socketpair()
        ours.setblocking(False)
        self.survivor.setblocking(False)
        self.ours = ours
        other = SimpleNamespace(fd=ours.fileno(), mute=lambda: None)
        self.broken = SimpleNamespace(ended=False, blocked=True, queued=False, moved=0, other=other)
        self.last_bytes = LastBytes(self.flow, cast("Side", self.broken))

    def pass_on(self, data: bytes) -> None:
        """What the pump does when the survivor takes bytes."""
        with contextlib.suppress(BlockingIOError):
            self.broken.moved += self.ours.send(data)


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.survivor.close()
    scene.ours.close()


def test_a_survivor_that_takes_nothing_is_given_up(scene: Scene) -> None:
    """There is no other end of it where no idle timeout is configured."""
    scene.last_bytes.start()
    scene.flow.pass_time(PATIENCE - LAST_LOOK)
    assert scene.flow.reported == []
    scene.flow.pass_time(2 * LAST_LOOK + STEP)
    assert scene.flow.reported == [scene.broken]
    assert scene.flow.timers == []


def test_one_that_takes_a_little_now_and_then_gets_all(scene: Scene) -> None:
    scene.last_bytes.start()
    for _ in range(5):
        scene.flow.pass_time(PATIENCE - 3 * LAST_LOOK)
        scene.pass_on(b"x")
        scene.survivor.recv(1)
        scene.flow.pass_time(LAST_LOOK + STEP)
    assert scene.flow.reported == []
    scene.broken.blocked = False
    scene.last_bytes.read()
    assert scene.flow.reported == [scene.broken]


def test_the_end_comes_when_the_last_byte_is_taken(scene: Scene) -> None:
    scene.pass_on(b"not yet")
    scene.broken.blocked, scene.broken.ended = False, True
    scene.last_bytes.start()
    assert unsent_bytes(scene.ours.fileno())
    assert scene.flow.reported == []
    scene.survivor.recv(7)
    scene.flow.pass_time(FIRST_LOOK + STEP)
    assert scene.flow.reported == [scene.broken]


def test_looks_become_fewer_until_something_is_taken(scene: Scene) -> None:
    scene.last_bytes.start()
    scene.flow.pass_time(2.0)
    assert scene.flow.looks[:6] == pytest.approx([0.02, 0.04, 0.08, 0.16, LAST_LOOK, LAST_LOOK])
    scene.pass_on(b"x")
    scene.survivor.recv(1)
    scene.flow.looks.clear()
    scene.flow.pass_time(2 * LAST_LOOK)
    assert scene.flow.looks[:2] == pytest.approx([FIRST_LOOK, 2 * FIRST_LOOK])


def test_what_the_survivor_says_is_dropped(scene: Scene) -> None:
    """It may have to write before it reads on. That alone does not keep the flow."""
    sent = 0

    def say() -> None:
        nonlocal sent
        with contextlib.suppress(BlockingIOError):
            sent += scene.survivor.send(bytes(COPY_SIZE))

    say()
    scene.last_bytes.start()
    scene.flow.pass_time(2 * PATIENCE, say)
    assert sent > 20 * COPY_SIZE
    assert scene.flow.reported == [scene.broken]


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "is silent"])
def test_a_survivor_that_says_no_more(scene: Scene, ends: bool) -> None:
    if ends:
        scene.survivor.shutdown(socket.SHUT_WR)
    scene.last_bytes.start()
    scene.flow.pass_time(1.0)
    assert scene.flow.reported == []
    scene.last_bytes.broke(cast("Side", scene.broken.other))
    assert scene.flow.reported == [scene.broken]
    assert scene.flow.timers == []
