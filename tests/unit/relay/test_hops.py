"""Hops: when relays are counted, and what is sent on."""

from __future__ import annotations

import contextlib
import socket

import pytest

from v6fwd.relay.limits import hops as hops_module
from v6fwd.relay.limits.hops import (
    MANY,
    MOST,
    QUIET,
    SAMPLE,
    START,
    TRIAL,
    Hops,
    received_hop_limit,
    set_hop_limit,
    set_hop_limit_of,
)


class Site:
    """Hops on a clock of the test's own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.hops = Hops(lambda: self.now)

    def begin(self, count: int, seconds: float = 0.0) -> bool:
        """Begin flows, all within so many seconds; whether they are counted at the end."""
        for _ in range(count):
            self.now += seconds / count
            self.hops.began()
        return self.hops.is_on


def test_nothing_is_counted_while_few_flows_begin() -> None:
    site = Site()
    assert not any(site.begin(MANY, 1.1) for _ in range(20))
    assert not site.begin(MANY - 1)


def test_many_flows_are_counted_for_a_while() -> None:
    site = Site()
    site.begin(MANY)
    assert site.begin(MANY, 0.5)
    assert all(site.begin(MANY, 0.5) for _ in range(int(2 * TRIAL) - 1)), "the trial"
    assert not site.begin(MANY, 0.5), "no count came in"
    assert not any(site.begin(MANY, 0.5) for _ in range(int(2 * QUIET) - 1))
    assert site.begin(MANY, 0.5), "another trial"


def test_who_gets_counts_goes_on_counting() -> None:
    site = Site()
    site.begin(2 * MANY)
    assert site.hops.onward(START - 3) == START - 4
    assert all(site.begin(MANY, 0.5) for _ in range(int(2 * TRIAL) + 2))
    assert not all(site.begin(MANY, 0.5) for _ in range(int(2 * TRIAL))), "none came in since"


def test_flows_that_are_few_again_end_it() -> None:
    site = Site()
    assert site.begin(2 * MANY)
    assert not site.begin(MANY, 1.5)


def test_suspicion_comes_before_rest() -> None:
    site = Site()
    site.begin(2 * MANY)
    assert not all(site.begin(MANY, 0.5) for _ in range(int(2 * TRIAL)))
    site.hops.suspect()
    assert site.hops.is_on


def test_clients_are_asked_rarely_until_one_has_a_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent has a count always: others rely on it."""
    came, asked = [64], [0]

    def received(_fd: int) -> int:
        asked[0] += 1
        return came[0]

    monkeypatch.setattr(hops_module, "received_hop_limit", received)
    hops = Site().hops
    hops.suspect()
    assert [hops.onward_of(0) for _ in range(3 * SAMPLE)] == [START] * 3 * SAMPLE
    assert asked[0] == 3
    came[0] = START - 1
    assert [hops.onward_of(0) for _ in range(SAMPLE)][-1] == START - 2, "one has been asked"
    asked[0] = 0
    assert [hops.onward_of(0) for _ in range(SAMPLE)] == [START - 2] * SAMPLE
    assert asked[0] == SAMPLE, "all from now on"


def test_a_sampled_loop_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pass is a flow of a relay that samples: the count is lost until one is asked."""
    limit, passes = [64], 0
    monkeypatch.setattr(hops_module, "received_hop_limit", lambda _: limit[0])
    hops = Site().hops
    hops.suspect()
    while limit[0]:
        limit[0] = hops.onward_of(0)
        passes += 1
    assert passes <= MOST + 1 + SAMPLE


@pytest.mark.parametrize("foreign", [0, 1, 41, 64, 128, START - 48, START + 1, 240, 255])
def test_what_others_send_is_no_count(foreign: int) -> None:
    assert Site().hops.onward(foreign) == START


def test_a_loop_ends_after_so_many_relays() -> None:
    hops, limit, relays = Site().hops, 64, 0
    while limit := hops.onward(limit):
        relays += 1
    assert relays == MOST + 1
    assert hops.onward(START - MOST - 10) == 0, "and routers between them"


@pytest.mark.parametrize(
    ("listen", "target"),
    [("::", "::1"), ("::", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "::ffff:127.0.0.1")],
)
def test_the_kernel_carries_the_count(listen: str, target: str) -> None:
    with contextlib.ExitStack() as sockets:
        server = sockets.enter_context(_socket(listen, socket.SOCK_STREAM))
        server.bind((listen, 0))
        server.listen()
        client = sockets.enter_context(_socket(target, socket.SOCK_STREAM))
        set_hop_limit(client, START - 7)
        client.connect((target, server.getsockname()[1]))
        accepted = sockets.enter_context(server.accept()[0])
        assert received_hop_limit(accepted.fileno()) == START - 7


def test_what_is_no_connection_has_no_count() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert received_hop_limit(one.fileno()) == 0
        set_hop_limit_of(one.fileno(), START)


def _socket(host: str, kind: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    if ":" in host:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return sock
