"""HTTP modes, the way back: answers pass unchanged, and one that was cut does not look whole."""

from __future__ import annotations

import signal
import socket

import pytest

from tests.support.rig import MIB, Rig, noise, read_all, read_exactly, reset, sending, was_reset
from tests.support.web import OK, answer_of, asked, get, head_of, ok, request, told, web_probe

WHOLE = [
    OK,
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: v\r\n\r\n",
]


@pytest.mark.parametrize("answer", WHOLE, ids=range(len(WHOLE)))
def test_answers_pass_unchanged(web: Rig, answer: bytes) -> None:
    """However they are cut; and the next request is one again."""
    client, target, _ = asked(web)
    for number in range(3):
        for at in range(0, len(answer), 1 + 40 * number):
            target.sendall(answer[at : at + 1 + 40 * number])
        assert read_exactly(client, len(answer)) == answer
        client.sendall(get())
        assert told(head_of(target)) == ["::1", "::1"]


def test_head_has_no_body(web: Rig) -> None:
    client, target, _ = asked(web, request("HEAD", "/"))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
    target.sendall(answer)
    assert read_exactly(client, len(answer)) == answer
    client.sendall(get())
    head_of(target)
    target.sendall(OK)
    assert answer_of(client) == (200, b"ok")


def test_answer_until_the_end(web: Rig) -> None:
    client, target, _ = asked(web)
    body = noise(9 * MIB, seed=1)
    with sending(target, b"HTTP/1.0 200 OK\r\n\r\n" + body):
        assert head_of(client).startswith(b"HTTP/1.0 200")
        assert read_all(client) == body


def test_big_chunks(web: Rig) -> None:
    client, target, _ = asked(web)
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for size in (1, 1000, 70_000, 3 * MIB):
        body += b"%x\r\n" % size + noise(size, seed=size) + b"\r\n"
    body += b"0\r\n\r\n"
    with sending(target, body + b"", end=False):
        assert read_exactly(client, len(body)) == body
    client.sendall(get("/next"))
    assert head_of(target).startswith(b"GET /next ")


BAD = [
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_bad_answer_is_a_502(web: Rig, bad: bytes) -> None:
    client, target, _ = asked(web)
    target.sendall(bad)
    assert answer_of(client)[0] == 502
    assert client.recv(1) == b""
    assert was_reset(target)
    *_, line = [line for line in web.process.log.splitlines() if "bad answer of 127." in line]
    assert "(client [" in line


CUT = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + noise(8 * MIB, seed=1),
]


@pytest.mark.parametrize("cut", CUT, ids=range(len(CUT)))
def test_answer_that_is_cut_does_not_look_whole(web: Rig, cut: bytes) -> None:
    client, target, _ = asked(web)
    with sending(target, cut):
        assert was_reset(client)


def test_bad_chunk_in_an_answer(web: Rig) -> None:
    client, target, _ = asked(web)
    target.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX")
    assert was_reset(client)
    assert was_reset(target)


def test_reset_of_an_answer_without_a_length(web: Rig) -> None:
    client, target, _ = asked(web)
    target.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")
    head_of(client)
    assert read_exactly(client, 5) == b"hello"
    reset(target)
    assert was_reset(client)


def test_target_closes_without_an_answer(web: Rig) -> None:
    client, target, _ = asked(web)
    target.close()
    assert answer_of(client)[0] == 502
    assert client.recv(1) == b""


def test_target_closes_when_the_next_request_comes(web: Rig) -> None:
    """Nothing, rather than an error: clients send such a request again by themselves."""
    client, target, _ = asked(web)
    target.sendall(OK)
    assert answer_of(client) == (200, b"ok")
    client.sendall(get())
    head_of(target)
    target.close()
    assert client.recv(1) == b""


def test_target_closes_an_idle_connection(web: Rig) -> None:
    client, target, _ = asked(web)
    target.sendall(OK)
    target.close()
    assert answer_of(client) == (200, b"ok")
    assert client.recv(1) == b""


def test_target_speaks_unasked(web: Rig) -> None:
    client, target, _ = asked(web)
    target.sendall(OK)
    assert answer_of(client) == (200, b"ok")
    target.sendall(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
    assert client.recv(1) == b""


def test_pipelined_behind_the_last(web: Rig) -> None:
    """The target closes after the first: the rest is not sent again, and no answer shifts."""
    client, target, _ = asked(web, get("/1") + get("/2") + get("/3"))
    target.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    target.shutdown(socket.SHUT_WR)
    assert answer_of(client) == (200, b"ok")
    assert client.recv(1) == b""


def test_early_answer(web: Rig) -> None:
    """The target answers and closes without reading the body: the client gets the answer."""
    client, target, _ = asked(web, request("POST", "/", "Content-Length: 90000000"))
    target.sendall(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
    client.sendall(noise(70_000, seed=1))
    target.close()  # with bytes unread: a reset
    assert answer_of(client) == (413, b"no")
    assert client.recv(1) == b""


def test_early_answer_and_the_body_goes_on(web: Rig) -> None:
    client, target, _ = asked(web, request("POST", "/", f"Content-Length: {9 * MIB}"))
    target.sendall(OK)
    assert answer_of(client) == (200, b"ok")
    with sending(client, noise(9 * MIB, seed=1) + get("/next"), end=False):
        assert read_exactly(target, 9 * MIB) == noise(9 * MIB, seed=1)
    assert told(head_of(target)) == ["::1", "::1"]


def test_client_resets(web: Rig) -> None:
    client, target, _ = asked(web)
    target.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    head_of(client)
    reset(client)
    assert was_reset(target)


def test_slow_reader(web: Rig) -> None:
    client, target, _ = asked(web, get("/1") + get("/2"))
    body = noise(32 * MIB, seed=1)
    answer = ok(body)
    with sending(target, answer + OK):
        web_probe(web)
        assert answer_of(client) == (200, body)
        assert answer_of(client) == (200, b"ok")
        assert client.recv(1) == b""


def test_slow_reader_is_refused_last(web: Rig) -> None:
    """What is due comes first, and all of it."""
    client, target, _ = asked(web, get("/1") + b"GET / HTTP/1.1\nno\n\n")
    body = noise(32 * MIB, seed=1)
    with sending(target, ok(body), end=False):
        web_probe(web)
        assert answer_of(client) == (200, body)
    assert answer_of(client)[0] == 400
    assert client.recv(1) == b""


# ---- switches of protocols ---------------------------------------------------------------------

UPGRADE = get("/chat", "Connection: Upgrade", "Upgrade: websocket")
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("early", [b"", b"GET / HTTP/1.1\r\nX-Real-IP: 1.1.1.1\r\n\r\n"])
def test_upgrade(web: Rig, early: bytes) -> None:
    """Nothing behind the request reaches the target before it has agreed; then everything."""
    client, target, head = asked(web, UPGRADE + early)
    assert b"\r\nUpgrade: websocket\r\n" in head
    web_probe(web)
    target.sendall(SWITCHING + b"first frame")
    assert head_of(client) == SWITCHING
    assert read_exactly(client, 11) == b"first frame"
    with sending(client, noise(MIB, seed=1)), sending(target, noise(MIB, seed=2)):
        assert read_all(target) == early + noise(MIB, seed=1)
        assert read_all(client) == noise(MIB, seed=2)


@pytest.mark.parametrize("together", [True, False])
def test_refused_upgrade_stays_http(web: Rig, together: bool) -> None:
    spoofed = get("/next", "X-Forwarded-For: 192.0.2.66")
    client, target, _ = asked(web, UPGRADE + spoofed if together else UPGRADE)
    target.sendall(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno")
    assert answer_of(client) == (426, b"no")
    if not together:
        client.sendall(spoofed)
    head = head_of(target)
    assert head.startswith(b"GET /next ")
    assert told(head) == ["::1", "::1"]


def test_refused_again(web: Rig) -> None:
    """What was refused once says nothing about the next: bytes behind it wait for its answer."""
    client, target, _ = asked(web, UPGRADE + UPGRADE + get("/next"))
    for _ in range(2):
        web_probe(web)
        target.sendall(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno")
        assert answer_of(client) == (426, b"no")
        head = head_of(target)
    assert head.startswith(b"GET /next ")


def test_upgrade_on_a_connection_that_was_used(web: Rig) -> None:
    client, target, _ = asked(web, get("/1") + UPGRADE)
    head_of(target)
    target.sendall(OK + SWITCHING)
    assert answer_of(client) == (200, b"ok")
    assert head_of(client) == SWITCHING
    client.sendall(b"frames")
    assert read_exactly(target, 6) == b"frames"


def test_connect(web: Rig, own_rig: Rig) -> None:
    tunnel = request("CONNECT", "h:443", host="h:443")
    client = web.connect()
    client.sendall(tunnel)
    assert answer_of(client)[0] == 405
    own_rig.start("--client-ip", "x-forwarded-for", "--on-opaque", "pass")
    client, target, _ = asked(own_rig, tunnel)
    target.sendall(b"HTTP/1.1 200 Fine\r\n\r\n")
    head_of(client)
    client.sendall(b"\x16\x03")
    assert read_exactly(target, 2) == b"\x16\x03"


# ---- stopping ----------------------------------------------------------------------------------


def test_stop_waits_for_answers_and_for_nothing_else(own_rig: Rig) -> None:
    own_rig.start("--client-ip", "x-forwarded-for", "--drain-timeout", "60")
    busy, busy_target, _ = asked(own_rig)
    idle, idle_target, _ = asked(own_rig)
    idle_target.sendall(OK)
    assert answer_of(idle) == (200, b"ok")
    silent = own_rig.connect()
    web_probe(own_rig)
    own_rig.process.signal(signal.SIGTERM)
    assert idle.recv(1) == silent.recv(1) == b""
    busy_target.sendall(OK)
    assert answer_of(busy) == (200, b"ok")
    assert busy.recv(1) == b""
    for client in (idle, silent, busy):
        client.close()
    assert own_rig.process.wait() == 0


def test_stop_waits_for_no_proxy_header(own_rig: Rig) -> None:
    """Who has not said yet for whom it speaks has asked for nothing."""
    options = "--client-ip", "x-forwarded-for", "--accept-proxy", "::1", "--drain-timeout", "60"
    own_rig.start(*options)
    silent = own_rig.connect()
    header = b"PROXY TCP6 2001:db8::1 2001:db8::2 5 80\r\n"
    busy, busy_target, _ = asked(own_rig, header + get())
    own_rig.process.signal(signal.SIGTERM)
    assert silent.recv(1) == b""
    busy_target.sendall(OK)
    assert answer_of(busy) == (200, b"ok")
    for client in (silent, busy):
        client.close()
    assert own_rig.process.wait() == 0


def test_record(web: Rig) -> None:
    client, target, _ = asked(web, get("/1") + get("/2"))
    target.sendall(OK + OK)
    assert answer_of(client) == answer_of(client) == (200, b"ok")
    client.close()
    web.drop()
    web.settled()
    assert " x-forwarded-for: 2 requests, " in web.process.log
