"""The race for a connection: what becomes of addresses that were set aside."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.relaying import until
from v6fwd.relay.sockets import is_connected
from v6fwd.relay.tcp.race import DELAY, LEAST_DELAY, Race

ADDRESSES = [(socket.AF_INET, ("127.0.0.1", number)) for number in (1, 2, 3)]


class Course:
    """A race with everything that it talks to."""

    def __init__(self, limit: float = 0) -> None:
        self.delays: list[float] = []
        self.handlers: dict[int, Any] = {}
        self.closed: list[int] = []
        self.said: list[Any] = []
        loop = SimpleNamespace(call_later=self._later)
        reactor = SimpleNamespace(
            loop=loop, change_handler=self.handlers.__setitem__, close_fd=self.closed.append
        )
        target = SimpleNamespace(
            live=None,
            failed=lambda address: self.said.append(("passed over", address)),
            answered=lambda address: self.said.append(("answered", address)),
        )
        racer = SimpleNamespace(
            earlier_connected=lambda fd, _: self.said.append(("connected", fd)),
            earlier_failed=lambda error: self.said.append(("failed", error.errno)),
        )
        parts: Any = (racer, reactor, target, ADDRESSES, limit)
        self.race = Race(*parts)

    def _later(self, delay: float, _: Callable[[], None]) -> Any:
        self.delays.append(delay)
        return SimpleNamespace(cancel=lambda: None)


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.setblocking(False)
        yield sock


@pytest.mark.parametrize(
    ("limit", "delay"), [(0, DELAY), (10, DELAY), (0.6, 0.15), (0.01, LEAST_DELAY)]
)
def test_the_delay_is_a_part_of_the_time_that_there_is(limit: float, delay: float) -> None:
    course = Course(limit)
    course.race.began()
    assert course.delays == [pytest.approx(delay)]


def test_an_address_that_is_silent_stays_in_the_race(sock: socket.socket) -> None:
    course = Course()
    course.race.set_aside(sock.fileno())
    course.handlers[sock.fileno()].on_event(0)
    assert course.race.waits
    assert course.closed == course.said == []


async def test_an_address_that_is_refused_leaves_the_race(sock: socket.socket) -> None:
    """It is closed, passed over for a while, and the racer hears why."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = server.getsockname()
    course = Course()
    fd = sock.fileno()
    course.race.set_aside(fd)
    sock.connect_ex(nobody)

    def is_told() -> bool:
        course.handlers[fd].on_event(0)
        return bool(course.said)

    await until(is_told)
    assert course.said == [("passed over", ADDRESSES[0]), ("failed", errno.ECONNREFUSED)]
    assert course.closed == [fd]
    assert not course.race.waits


async def test_an_address_that_answers_late_is_connected(sock: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        course = Course()
        fd = sock.fileno()
        course.race.set_aside(fd)
        sock.connect_ex(server.getsockname())
        await until(lambda: is_connected(fd))
        course.handlers[fd].on_event(0)
        assert course.said == [("connected", fd)]
        assert course.race.at == ADDRESSES[1]
        course.race.overtakes(fd)
        assert course.race.at == ADDRESSES[0]
        assert course.said[1:] == [("passed over", ADDRESSES[1])]
        course.race.won()
        assert course.said[2:] == [("answered", ADDRESSES[0])]
        assert course.closed == []


def test_who_lost_is_closed(sock: socket.socket) -> None:
    course = Course()
    course.race.set_aside(sock.fileno())
    course.race.won()
    assert course.closed == [sock.fileno()]
    assert course.said == [("answered", ADDRESSES[1]), ("passed over", ADDRESSES[0])]
    assert not cast(Any, course.race)._left
