"""The answers that are made here."""

from __future__ import annotations

import h11
import pytest

from v6fwd.client_ip.http.refusal import refusal


@pytest.mark.parametrize("status", [400, 405, 408, 414, 417, 431, 501, 502, 504, 505])
def test_a_refusal_is_a_whole_response(status: int) -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(refusal(status, "no Host"))
    response, data, end = (client.next_event() for _ in range(3))
    assert isinstance(response, h11.Response)
    assert response.status_code == status
    assert (b"content-type", b"text/plain") in response.headers
    assert isinstance(data, h11.Data)
    assert data.data.startswith(b"%d " % status)
    assert data.data.endswith(b": no Host\n")
    assert data.data.count(b"\n") == 1
    assert isinstance(end, h11.EndOfMessage)
    assert client.their_state is h11.MUST_CLOSE
    assert client.trailing_data == (b"", False)


def test_a_405_tells_what_is_allowed() -> None:
    """RFC 9110, 15.5.6 asks for it; of all methods only CONNECT is refused."""
    assert b"\r\nAllow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n" in refusal(405, "x")
    assert b"Allow" not in refusal(400, "x")


def test_the_text() -> None:
    assert refusal(400, "no Host") == (
        b"HTTP/1.1 400 Bad Request\r\n"
        b"Content-Type: text/plain\r\n"
        b"Content-Length: 25\r\n"
        b"Connection: close\r\n"
        b"\r\n"
        b"400 Bad Request: no Host\n"
    )
