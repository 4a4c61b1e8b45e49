"""The costly input of `bench.hostile_http` is read to its end, and bytes and times are counted."""

from __future__ import annotations

import pytest

from bench.helpers.hostile import KINDS
from bench.hostile_http import measure
from bench.peers import PEERS
from bench.peers.base import HEADER_HTTP
from tests.support.http_reading import maker
from v6fwd.client_ip.http.responses import MAX_INTERIM, ResponseStream
from v6fwd.client_ip.http.syntax import Kind

V6FWD = next(peer for peer in PEERS if peer.product == "v6fwd" and peer.header == HEADER_HTTP)


@pytest.mark.parametrize("kind", ["request-chunks-random", "response-chunks-1"])
def test_a_measurement(kind: str) -> None:
    told = measure(V6FWD, kind, 0.3)
    assert 0 < told.p50 <= told.p99 <= told.slowest
    assert told.cpu_per_mb > 0
    assert told.rate > 0


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"request-extensions"}))  # which are refused
def test_what_is_sent_is_costly_and_valid(name: str) -> None:
    """A refusal would end the cost, and compare nothing."""
    kind = KINDS[name]
    stream = maker()()
    stream.receive(kind.first + kind.again * 2)
    assert stream.refused is None
    answers = ResponseStream()
    for _ in range(MAX_INTERIM):
        answers.expect(Kind.PLAIN)
    answers.receive(kind.answer + kind.endless)
    assert answers.error == ""
