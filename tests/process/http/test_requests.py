"""HTTP modes: every request gets its client's address, and only requests get through."""

from __future__ import annotations

import select
import socket
from pathlib import Path

import pytest

from tests.support.process import free_port
from tests.support.rig import (
    MIB,
    Rig,
    noise,
    read_all,
    read_exactly,
    sending,
    was_reset,
)
from tests.support.web import (
    OK,
    answer_of,
    asked,
    fields_of,
    get,
    head_of,
    ok,
    request,
    told,
    web_probe,
)

SPOOFED = ("X-Forwarded-For: 192.0.2.66", "x-forwarded_for: 192.0.2.66", "X-REAL-IP: 192.0.2.66")


def nobody_came(rig: Rig) -> bool:
    return not select.select([rig.server], [], [], 0)[0]


@pytest.mark.parametrize(("host", "name"), [("::1", "::1"), ("127.0.0.1", "127.0.0.1")])
def test_every_request_of_a_connection(web: Rig, host: str, name: str) -> None:
    client, target, head = asked(web, get("/0", *SPOOFED), host)
    for number in range(1, 4):
        assert told(head) == [name, name]
        fields = fields_of(head)
        assert fields["x-forwarded-proto"] == ["http"]
        assert fields["x-forwarded-port"] == [str(web.port)]
        target.sendall(OK)
        assert answer_of(client) == (200, b"ok")
        client.sendall(get(f"/{number}", *SPOOFED))
        head = head_of(target)
        assert head.startswith(b"GET /%d " % number)


def test_pipelined_requests(web: Rig) -> None:
    client, target, head = asked(web, b"".join(get(f"/{n}", *SPOOFED) for n in range(1000)))
    target.sendall(OK)
    for number in range(1, 1000):
        head = head_of(target)
        assert head.startswith(b"GET /%d " % number)
        assert told(head) == ["::1", "::1"]
        target.sendall(OK)
    for _ in range(1000):
        assert answer_of(client) == (200, b"ok")


def test_more_pipelined_than_are_kept(web: Rig) -> None:
    """A target that answers nothing for a while does not get requests without end."""
    count = 3000
    client = web.connect()
    with sending(client, b"".join(get(f"/{n}") for n in range(count)), end=False):
        target = web.accept()
        for _ in range(count):
            head_of(target)
            target.sendall(OK)
        for _ in range(count):
            assert answer_of(client) == (200, b"ok")


def test_target_is_dialled_for_a_whole_head_only(web: Rig) -> None:
    data = get("/", "A: b")
    client = web.connect()
    for at in range(len(data) - 1):
        client.sendall(data[at : at + 1])
    web_probe(web)
    assert nobody_came(web)
    client.sendall(data[-1:])
    assert told(head_of(web.accept())) == ["::1", "::1"]


BAD = [
    request("GET", "/", "Content-Length: 1", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    request("GET", "/", "Content-Length: 1", "Content-Length: 2", body=b"x"),
    request("GET", "/", "Name : value"),
    b"GET / HTTP/1.1\nHost: h\n\n",
    b"GET / HTTP/1.1\r\n\r\n",
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_refused(web: Rig, bad: bytes) -> None:
    client = web.connect()
    client.sendall(bad)
    status, body = answer_of(client)
    assert status == 400
    assert body.startswith(b"400 Bad Request: ")
    assert body.count(b"\n") == 1
    assert client.recv(1) == b""
    assert nobody_came(web)
    assert "refused [::1]:" in web.process.log


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_refused_behind_a_good_one(web: Rig, bad: bytes) -> None:
    """The good one is answered first, however late; the bad one does not reach the target."""
    client, target, _ = asked(web, get("/good") + bad + get("/never"))
    web_probe(web)
    target.sendall(OK)
    assert answer_of(client) == (200, b"ok")
    assert answer_of(client)[0] == 400
    assert client.recv(1) == b""
    assert target.recv(1000) == b""


def test_bad_chunk_cuts_the_request(web: Rig) -> None:
    """The target must not take half a body for a whole one."""
    client, target, _ = asked(web, request("POST", "/", "Transfer-Encoding: chunked"))
    client.sendall(b"5\r\nhello\r\n")
    assert read_exactly(target, 10) == b"5\r\nhello\r\n"
    client.sendall(b"5\nhello")
    assert was_reset(target)
    assert answer_of(client)[0] == 400
    assert client.recv(1) == b""


def test_what_follows_a_refusal_is_dropped(web: Rig) -> None:
    """The answer is not destroyed by a reset for what the client still sends."""
    client = web.connect()
    client.sendall(b"GET / HTTP/9.9\r\n\r\n")
    client.sendall(noise(MIB, seed=1))
    assert answer_of(client)[0] in (400, 505)
    assert client.recv(1) == b""


@pytest.mark.parametrize("size", [0, 1, 70_000, 9 * MIB])
def test_bodies_both_ways(web: Rig, size: int) -> None:
    up, down = noise(size, seed=1), noise(size, seed=2)
    client, target, _ = asked(web, request("POST", "/", f"Content-Length: {size}"))
    for _ in range(2):
        with sending(client, up + request("POST", "/", f"Content-Length: {size}"), end=False):
            assert read_exactly(target, size) == up
            assert told(head_of(target)) == ["::1", "::1"]
        with sending(target, ok(down), end=False):
            assert answer_of(client) == (200, down)


def test_chunked_body(web: Rig) -> None:
    head = request("POST", "/", "Transfer-Encoding: chunked")
    data = noise(65536, seed=1)
    body = b"3;a=b\r\nabc\r\n10000\r\n" + data + b"\r\n0\r\nX-Real-IP: 1.1.1.1\r\n\r\n"
    client, target, _ = asked(web, head)
    with sending(client, body + get("/next"), end=False):
        expected = b"3\r\nabc\r\n10000\r\n" + data + b"\r\n0\r\n\r\n"
        assert read_exactly(target, len(expected)) == expected
    assert told(head_of(target)) == ["::1", "::1"]


def test_expect_continue(web: Rig) -> None:
    fields = ("Content-Length: 5", "Expect: 100-continue")
    client, target, _ = asked(web, request("POST", "/", *fields))
    target.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert head_of(client).startswith(b"HTTP/1.1 100 ")
    client.sendall(b"hello")
    assert read_exactly(target, 5) == b"hello"
    target.sendall(OK)
    assert answer_of(client) == (200, b"ok")


def test_half_closed_client_is_answered(web: Rig) -> None:
    client, target, _ = asked(web)
    client.shutdown(socket.SHUT_WR)
    assert target.recv(1) == b""
    target.sendall(OK)
    target.close()
    assert answer_of(client) == (200, b"ok")
    assert client.recv(1) == b""


def test_silent_clients_leave_nothing(web: Rig) -> None:
    for data in (b"", b"GET", get()[:-1]):
        client = web.connect()
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert nobody_came(web)


# ---- time, and targets that are not there ------------------------------------------------------


def test_slow_head(own_rig: Rig) -> None:
    own_rig.start("--client-ip", "x-forwarded-for", "--request-timeout", "0.3")
    silent, slow = own_rig.connect(), own_rig.connect()
    slow.sendall(get()[:-1])
    assert answer_of(slow)[0] == 408
    assert slow.recv(1) == b""
    assert silent.recv(1) == b""
    assert nobody_came(own_rig)


def test_slow_head_on_a_connection_that_was_used(own_rig: Rig) -> None:
    own_rig.start("--client-ip", "x-forwarded-for", "--request-timeout", "0.3")
    client, target, _ = asked(own_rig)
    target.sendall(OK)
    assert answer_of(client) == (200, b"ok")
    client.sendall(get()[:-1])
    assert answer_of(client)[0] == 408
    assert target.recv(1) == b""


def test_loris(own_rig: Rig) -> None:
    """Many heads that never end: others are served meanwhile, and they are cut off."""
    own_rig.start("--client-ip", "x-forwarded-for", "--request-timeout", "1")
    slow = [own_rig.connect() for _ in range(500)]
    for at in range(3):
        for client in slow:
            client.sendall(get()[at : at + 1])
        web_probe(own_rig)
    for client in slow:
        assert answer_of(client)[0] == 408
    own_rig.drop()
    own_rig.settled()


def test_target_down(own_rig: Rig) -> None:
    target = f"127.0.0.1:{free_port('127.0.0.1')}"
    own_rig.start("--client-ip", "forwarded", target=target)
    client = own_rig.connect()
    client.sendall(get() + get("/second"))
    status, body = answer_of(client)
    assert (status, body.count(b"\n")) == (502, 1)
    assert b"connection refused" in body
    assert client.recv(1) == b""
    assert f"cannot connect to {target}" in own_rig.process.log
    own_rig.settled()


def test_trusted_proxy(own_rig: Rig) -> None:
    own_rig.start("--client-ip", "x-forwarded-for", "--trust-forwarded", "::1")
    _, _, head = asked(
        own_rig, get("/", "X-Forwarded-For: 2001:db8::7", "X-Forwarded-For: 192.0.2.1")
    )
    assert fields_of(head)["x-forwarded-for"] == ["2001:db8::7, 192.0.2.1, ::1"]
    _, _, head = asked(own_rig, get("/", "X-Forwarded-For: 2001:db8::7"), "127.0.0.1")
    assert fields_of(head)["x-forwarded-for"] == ["127.0.0.1"]


def test_address_from_a_proxy_header(own_rig: Rig) -> None:
    own_rig.start("--client-ip", "forwarded", "--accept-proxy", "::1")
    data = b"PROXY TCP6 2001:db8:1::2 2001:db8:1::1 54321 80\r\n" + get(
        "/", "Forwarded: for=spoofed"
    )
    _, _, head = asked(own_rig, data)
    (forwarded,) = fields_of(head)["forwarded"]
    assert forwarded.startswith('for="[2001:db8:1::2]:54321";proto=http')


def test_unix_target(own_rig: Rig, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        own_rig.start("--client-ip", "x-forwarded-for", target=f"unix:{path}")
        client = own_rig.connect()
        client.sendall(get())
        with own_rig.keep(server.accept()[0]) as target:
            assert told(head_of(target)) == ["::1", "::1"]
            target.sendall(OK)
            assert answer_of(client) == (200, b"ok")


def test_what_is_not_http(web: Rig) -> None:
    for first in (b"\x16\x03\x01\x02\x00\x01\x00\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        client = web.connect()
        client.sendall(first)
        assert read_all(client).startswith(b"HTTP/1.1 ")
        assert nobody_came(web)
    for what in ("TLS", "HTTP/2"):
        assert f"{what} needs --client-ip proxy-v2" in web.process.log


def test_what_is_not_http_may_pass(own_rig: Rig) -> None:
    own_rig.start("--client-ip", "x-forwarded-for", "--on-opaque", "pass")
    for first in (b"\x16\x03\x01\x02\x00\x01\x00\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        client = own_rig.connect()
        client.sendall(first)
        target = own_rig.accept()
        assert read_exactly(target, len(first)) == first
        with sending(target, noise(MIB, seed=1)):
            assert read_all(client) == noise(MIB, seed=1)
        with sending(client, noise(MIB, seed=2)):
            assert read_all(target) == noise(MIB, seed=2)
