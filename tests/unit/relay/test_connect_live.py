"""Connect to a service whose tasks come and go while it waits, and to nodes that have some."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.relay.test_connect import CLIENT, REFUSED, Site, ended_by_reset
from v6fwd.client_ip.proxy.read import read_header
from v6fwd.client_ip.proxy.tlvs import Tlv, each_tlv
from v6fwd.model import Mesh
from v6fwd.relay.tcp.first_bytes import PASSED_ON


class LiveSite(Site):
    """A service; its addresses from 10 on are nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self
        self.now: list[int] = []
        """Whom it has."""
        self.can_wait = True
        self.waiting: list[Callable[[], None]] = []

    @property
    def is_name(self) -> bool:
        return True

    def order(self, _source: Any = None) -> list[int]:
        return list(self.now)

    def others(self, then: Callable[[], None], since: float) -> bool:
        assert since == 0.0, "since the first time that all had failed"
        if self.can_wait:
            self.waiting.append(then)
        return self.can_wait

    def is_hop(self, address: int) -> bool:
        return address >= 10

    def tell(self, *now: int) -> None:
        """It has these, or some time has passed."""
        self.now = list(now)
        [then] = self.waiting
        self.waiting.clear()
        then()
        self.settle()


@pytest.fixture
def site() -> Iterator[LiveSite]:
    one = LiveSite()
    yield one
    one.close()


def test_a_lonely_silent_task_is_raced_by_one_that_comes(site: LiveSite) -> None:
    """It was killed, and another one lives by now."""
    site.now = [1]
    site.a_silent_target()
    site.begin()
    site.later.pop()()
    assert site.verdicts == [(1, False)], "nobody else waits for it first"
    site.tell(1)
    assert site.asked == [1], "it is silent still"
    new = site.a_silent_target()
    site.tell(1, 2)
    assert site.asked == [1, 2]
    site.client.send(b"hello")
    assert site.answers(new).recv(100) == b"hello"
    assert site.reports == [("connected", b"", 5, True, False)]
    assert list(site.watched) == [new]


def test_the_silent_one_may_answer_while_others_are_waited_for(site: LiveSite) -> None:
    site.now = [1]
    slow = site.a_silent_target()
    site.begin()
    site.later.pop()()
    site.client.send(b"hello")
    assert site.answers(slow).recv(100) == b"hello"
    assert site.reports == [("connected", b"", 5, True, False)]
    site.tell(1, 2)
    assert site.asked == [1]


def test_it_tries_until_its_time_is_over(site: LiveSite) -> None:
    """Not once only: the first change may be that the last task went."""
    site.now = [1]
    site.script += [REFUSED, REFUSED]
    site.begin()
    assert site.reports == []
    site.tell()
    site.tell()
    assert site.asked == [1]
    site.tell(2)
    assert site.asked == [1, 2]
    site.can_wait = False
    site.script.append(REFUSED)
    site.tell(2)
    assert site.reports == [("failed", errno.ECONNREFUSED)]


def test_a_service_without_tasks_gets_one(site: LiveSite) -> None:
    site.begin(b"hello")
    assert (site.asked, site.reports) == ([], [])
    target = site.a_target()
    site.tell(3)
    assert target.recv(100) == b"hello"
    assert site.asked == [3]


def test_no_task_comes(site: LiveSite) -> None:
    site.can_wait = False
    site.begin()
    assert [report[0] for report in site.reports] == ["failed"]


def test_the_time_limit_ends_the_wait(site: LiveSite) -> None:
    site.now = [1]
    silent = site.a_silent_target()
    connect = site.begin()
    site.later.pop()()
    connect.expired()
    assert site.reports == [("failed", errno.ETIMEDOUT)]
    assert silent not in site.watched
    site.tell(2)
    assert site.asked == [1], "it is over"


def test_whoever_fails_later_does_not_end_the_wait(site: LiveSite) -> None:
    site.now = [1, 2]
    first = site.a_silent_target()
    site.script.append(REFUSED)
    site.begin()
    site.later.pop()()
    assert len(site.waiting) == 1
    site.breaks(first)
    assert (site.reports, len(site.waiting)) == ([], 1)
    target = site.a_target()
    site.tell(1)
    site.client.send(b"hello")
    site.event()
    assert target.recv(100) == b"hello"


@pytest.mark.parametrize("own", [b"", b"OWN "])
def test_a_node_gets_a_header_of_its_own(site: LiveSite, own: bytes) -> None:
    """In any mode: it serves the flow as its labels ask."""
    site.now = [1, 10]
    site.headers = iter([own])
    site.script.append(REFUSED)
    target = site.a_target()
    site.begin(b"hello")
    said = target.recv(500)
    header = read_header(said)
    assert header is not None
    assert (header.source, said[header.length :]) == (CLIENT, b"hello")
    assert list(each_tlv(header.tlvs)) == []


def a_waiting_target(site: LiveSite) -> int:
    """The next attempt takes no byte, as while the handshake lasts; gives its descriptor."""
    site.a_target()
    fd = site.script[-1]
    assert isinstance(fd, int)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, bytes(1 << 16))
    return fd


def test_each_has_its_own_header_in_a_race(site: LiveSite) -> None:
    site.now = [1, 10]
    site.headers = iter([b"OWN ", b"OWN "])
    task, node = a_waiting_target(site), a_waiting_target(site)
    site.begin(b"hello")
    site.later.pop()()
    assert site.asked == [1, 10]
    theirs = site.answers(task)
    assert theirs.recv(500) == b"OWN hello"
    assert node not in site.watched


def test_a_node_passes_on_once(site: LiveSite) -> None:
    """What came by the hop, as its own tasks have just gone.

    No third node follows: two that each believe the other one to have a task would go on for ever.
    """
    site.mesh = Mesh(is_hop=True)
    site.now = [10]
    target = site.a_target()
    site.begin(b"hello")
    header = read_header(target.recv(500))
    assert header is not None
    assert list(each_tlv(header.tlvs)) == [Tlv(PASSED_ON, b"")]


def test_what_was_passed_on_goes_to_tasks_here(site: LiveSite) -> None:
    site.mesh = Mesh(is_hop=True)
    site.tlvs = Tlv(PASSED_ON, b"").packed()
    site.now = [10]
    site.begin(b"hello")
    assert (site.asked, site.reports) == ([], [])
    target = site.a_target()
    site.tell(10, 1)
    assert target.recv(100) == b"hello"
    assert site.asked == [1]


def test_what_a_client_says_is_no_mark(site: LiveSite) -> None:
    """At a port for clients."""
    site.tlvs = Tlv(PASSED_ON, b"").packed()
    site.now = [10]
    target = site.a_target()
    site.begin(b"hello")
    assert target.recv(500).endswith(b"hello")


def test_a_flow_that_was_stopped_hears_nothing(site: LiveSite) -> None:
    site.begin().stop()
    site.tell(1)
    assert (site.asked, site.reports) == ([], [])


def test_who_overtakes_leaves_no_other(site: LiveSite) -> None:
    site.now = [1, 2]
    one, other = site.a_silent_target(), site.a_target()
    site.begin()
    site.later.pop()()
    site.client.send(b"hello")
    site.answers(one)
    assert ended_by_reset(other)
