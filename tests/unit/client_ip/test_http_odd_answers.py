"""Answers that are not by the letter: written anew where all agree about them, else refused."""

from __future__ import annotations

import h11
import pytest

from tests.support.http_reading import every_cut
from tests.unit.client_ip.http_odd_answers import ALL_PASS, MENDED, ONE_REFUSES, Odd
from v6fwd.client_ip.http.responses import ResponseStream
from v6fwd.client_ip.http.syntax import Kind

PASSED = ALL_PASS | MENDED
passed = pytest.mark.parametrize("odd", PASSED.values(), ids=PASSED.keys())
USUAL = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"


def feed(parts: list[bytes], requests: int = 2) -> tuple[bytes, ResponseStream]:
    """What the client gets, and the stream."""
    stream = ResponseStream()
    for _ in range(requests):
        stream.expect(Kind.PLAIN)
    return b"".join(bytes(piece) for part in parts for piece in stream.receive(part)), stream


@passed
def test_odd_answers_are_written_anew(odd: Odd) -> None:
    for parts in ([odd.raw], *every_cut(odd.raw)):
        out, stream = feed(parts)
        assert (out, stream.error, stream.is_spent) == (odd.clean, "", odd.ends)
        assert stream.outstanding == (0 if odd.ends else 1)
        assert stream.ended() == ("" if odd.ends else "closed without an answer")


@passed
def test_nothing_passes_behind_an_answer_whose_end_is_in_doubt(odd: Odd) -> None:
    for parts in ([odd.raw + USUAL], [odd.raw, USUAL], *every_cut(odd.raw + USUAL)):
        out, stream = feed(parts)
        assert out == (odd.clean if odd.ends else odd.clean + USUAL)
        assert stream.error in ("", "response that nobody asked for")


@passed
def test_a_client_reads_the_clean_form(odd: Odd) -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(odd.clean)
    body, events = b"", []
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        assert event is not h11.NEED_DATA
        events.append(event)
        body += bytes(event.data) if isinstance(event, h11.Data) else b""
    assert body == b"ok"
    (final,) = [event for event in events if isinstance(event, h11.Response)]
    if odd.ends and b"chunked" not in odd.clean:
        assert (b"connection", b"close") in [
            (name, value.rpartition(b", ")[2]) for name, value in final.headers
        ]


@pytest.mark.parametrize("raw", ONE_REFUSES.values(), ids=ONE_REFUSES.keys())
def test_what_one_refuses_is_refused(raw: bytes) -> None:
    out, stream = feed([raw])
    assert stream.error
    assert out in (b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") or (
        out.endswith(b"\r\n\r\n2\r\nok\r\n")
    )


def test_an_answer_to_head_is_mended_too() -> None:
    stream = ResponseStream()
    stream.expect(Kind.HEAD)
    out = stream.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 7, 7\r\n\r\n")
    assert out == [b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"]
    assert (stream.outstanding, stream.is_spent) == (0, False)


def test_a_switch_is_mended_too() -> None:
    stream = ResponseStream()
    stream.expect(Kind.UPGRADE)
    raw = b"HTTP/1.1 101 Switching\nConnection: upgrade\nUpgrade: x\n\n"
    out = b"".join(map(bytes, stream.receive(raw + b"\n\0")))
    assert stream.switched
    assert out == (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + b"\n\0")
