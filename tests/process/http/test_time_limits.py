"""Time limits of HTTP flows: whoever does not go on is told, and others are left alone."""

from __future__ import annotations

import pytest

from tests.support.rig import Rig, was_reset
from tests.support.web import END, OK, answer_of, asked, get, head_of, request

HTTP = "--client-ip", "x-forwarded-for"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade" + END


@pytest.mark.parametrize(
    "post",
    [
        request("POST", "/", "Content-Length: 9", body=b"half"),
        request("POST", "/", "Transfer-Encoding: chunked", body=b"9\r\nhalf"),
    ],
    ids=["length", "chunked"],
)
def test_body_that_stops(own_rig: Rig, post: bytes) -> None:
    own_rig.start(*HTTP, "--body-timeout", "0.3")
    client, target, _ = asked(own_rig, post)
    assert answer_of(client)[0] == 408
    assert client.recv(1) == b""
    assert was_reset(target)
    assert "the body of the request did not come in time" in own_rig.process.log


def test_body_that_stops_after_the_answer_began(own_rig: Rig) -> None:
    own_rig.start(*HTTP, "--body-timeout", "0.3")
    client, target, _ = asked(own_rig, request("POST", "/", "Content-Length: 9", body=b"half"))
    target.sendall(OK[:-1])
    assert was_reset(client)
    assert was_reset(target)


def test_silent_target(own_rig: Rig) -> None:
    own_rig.start(*HTTP, "--response-timeout", "0.3")
    client, target, _ = asked(own_rig)
    assert answer_of(client)[0] == 504
    assert client.recv(1) == b""
    assert was_reset(target)


def test_answer_that_stops(own_rig: Rig) -> None:
    own_rig.start(*HTTP, "--response-timeout", "0.3")
    client, target, _ = asked(own_rig)
    target.sendall(OK[:-1])
    assert was_reset(client)


def test_only_whoever_is_due_is_timed(own_rig: Rig) -> None:
    """No clock runs for an answer while the body comes, nor for anybody between two requests."""
    own_rig.start(*HTTP, "--response-timeout", "0.3", "--body-timeout", "0.3", "--log-flows")
    idle, target, _ = asked(own_rig)
    target.sendall(OK)
    assert answer_of(idle) == (200, b"ok")
    client, other, _ = asked(own_rig)
    assert answer_of(client)[0] == 504  # so that the time is over for the idle one, too
    assert was_reset(other)
    idle.sendall(get())
    head_of(target)
    target.sendall(OK)
    assert answer_of(idle) == (200, b"ok")


def test_tunnel_that_is_silent(own_rig: Rig) -> None:
    own_rig.start(*HTTP, "--tunnel-timeout", "0.3", "--log-flows")
    client, target, _ = asked(own_rig, get("/", "Upgrade: x", "Connection: upgrade"))
    target.sendall(SWITCH)
    head_of(client)
    assert was_reset(client)
    assert was_reset(target)
    assert "tunnel timeout" in own_rig.process.log
