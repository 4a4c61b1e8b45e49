"""HTTP modes and peers that are odd or hostile: doubtful answers, much work, hijacked streams."""

from __future__ import annotations

import pytest

from tests.support.rig import MIB, Rig, noise, read_all, read_exactly, sending, was_reset
from tests.support.web import OK, answer_of, asked, fields_of, get, head_of, request, told
from tests.unit.client_ip.http_odd_answers import ALL_PASS, Odd
from v6fwd.client_ip.proxy.tlvs import Tlv, add_tlvs, each_tlv
from v6fwd.client_ip.proxy.write import write_v2
from v6fwd.model import Address

SOURCE = Address(bytes.fromhex("20010db8000100000000000000000077"), 51000)
DIALLED = Address(bytes.fromhex("20010db8000100000000000000000001"), 443)
TLS = Tlv(0x20, b"\x01" + bytes(4))
UNIQUE_ID = Tlv(0x05, b"unique")
PICKED = ("blank behind a chunk's size", "length as a list", "LF in the head", "LF in chunks")
HIJACK = request(
    "POST", "/exec", "Content-Length: 4", "Connection: Upgrade", "Upgrade: tcp", body=b"{  }"
)
SWITCHING = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


@pytest.mark.parametrize("odd", [ALL_PASS[name] for name in PICKED], ids=PICKED)
def test_odd_answers_come_in_a_clean_form(web: Rig, odd: Odd) -> None:
    client, target, _ = asked(web)
    target.sendall(odd.raw)
    assert read_exactly(client, len(odd.clean)) == odd.clean
    if odd.ends:
        assert client.recv(1) == b""
        client.close()
        assert target.recv(1) == b""
    else:
        client.sendall(get())
        assert told(head_of(target)) == ["::1", "::1"]


@pytest.mark.parametrize("size", [10, 5 * MIB])
def test_the_connection_ends_behind_a_doubtful_length(web: Rig, size: int) -> None:
    """The target keeps its connection open; a body of any size is delivered first."""
    client, target, _ = asked(web)
    body = noise(size, seed=3)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0%d\r\n\r\n" % size
    with sending(target, head + body, end=False):
        assert fields_of(head_of(client))["connection"] == ["close"]
        assert read_exactly(client, size) == body
    assert client.recv(1) == b""


def test_too_many_interim_answers(web: Rig) -> None:
    client, target, _ = asked(web)
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    with sending(target, interim * 1001, end=False):
        assert read_exactly(client, 1000 * len(interim)) == interim * 1000
        assert answer_of(client)[0] == 502
    assert was_reset(target)


def test_many_heads_that_all_differ(web: Rig) -> None:
    """More work than one turn has: nothing is lost, and the order stays."""
    count, client = 200, web.connect()
    heads = [get(f"/{at}", *(f"h{at}-{field}: x" for field in range(80))) for at in range(count)]
    with sending(client, b"".join(heads), end=False):
        target = web.accept()
        for at in range(count):
            head = head_of(target)
            assert head.startswith(b"GET /%d " % at)
            assert told(head) == ["::1", "::1"]
            target.sendall(OK)
            assert answer_of(client) == (200, b"ok")


def test_many_small_chunks_both_ways(web: Rig) -> None:
    chunks = b"".join(b"%x;a\r\n%b\r\n" % (200, b"x" * 200) for _ in range(2000)) + b"0\r\n\r\n"
    client, target, _ = asked(web, request("POST", "/", "Transfer-Encoding: chunked"))
    with sending(client, chunks + get("/next"), end=False):
        expected = chunks.replace(b";a", b"")
        assert read_exactly(target, len(expected)) == expected
        assert head_of(target).startswith(b"GET /next ")
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    with sending(target, answer + OK, end=False):
        assert read_exactly(client, len(answer)) == answer
        assert answer_of(client) == (200, b"ok")


@pytest.mark.parametrize("cut", [None, -4, -1])
def test_a_hijacked_stream(web: Rig, cut: int | None) -> None:
    """`docker exec`: the body first, then bytes both ways. The answer may come before the body."""
    client, target, head = asked(web, HIJACK[:cut])
    assert fields_of(head)["upgrade"] == ["tcp"]
    target.sendall(SWITCHING + b"prompt$ ")
    assert head_of(client) == SWITCHING
    assert read_exactly(client, 8) == b"prompt$ "
    if cut is not None:
        client.sendall(HIJACK[cut:])
    assert read_exactly(target, 4) == b"{  }"
    client.sendall(b"ls\n")
    assert read_exactly(target, 3) == b"ls\n"
    target.sendall(b"files")
    assert read_exactly(client, 5) == b"files"


@pytest.mark.parametrize("early", [True, False])
def test_a_switch_behind_a_large_body(web: Rig, early: bool) -> None:
    body = noise(3 * MIB, seed=5)
    fields = f"Content-Length: {len(body)}", "Connection: Upgrade", "Upgrade: tcp"
    client, target, _ = asked(web, request("POST", "/load", *fields))
    if early:
        target.sendall(SWITCHING)
        assert head_of(client) == SWITCHING
    with sending(client, body, end=False):
        assert read_exactly(target, len(body)) == body
    if not early:
        target.sendall(SWITCHING)
        assert head_of(client) == SWITCHING
    with sending(client, noise(MIB, seed=1)), sending(target, noise(MIB, seed=2)):
        assert read_all(target) == noise(MIB, seed=1)
        assert read_all(client) == noise(MIB, seed=2)


def test_a_refused_hijack_stays_http(web: Rig) -> None:
    client, target, _ = asked(web, HIJACK + get("/next", "X-Forwarded-For: 192.0.2.66"))
    assert read_exactly(target, 4) == b"{  }"
    target.sendall(b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno")
    assert answer_of(client) == (409, b"no")
    head = head_of(target)
    assert head.startswith(b"GET /next ")
    assert told(head) == ["::1", "::1"]


@pytest.mark.parametrize(("tlvs", "scheme"), [((TLS,), "https"), ((UNIQUE_ID,), "http")])
def test_https_where_the_header_says_tls(own_rig: Rig, tlvs: tuple[Tlv, ...], scheme: str) -> None:
    own_rig.start("--client-ip", "x-forwarded-for", "--accept-proxy", "::1")
    header = add_tlvs(write_v2(SOURCE, DIALLED), b"".join(tlv.packed() for tlv in tlvs), 999)
    _, _, head = asked(own_rig, header + get())
    assert fields_of(head)["x-forwarded-proto"] == [scheme]
    assert fields_of(head)["x-forwarded-for"] == [SOURCE.host]


@pytest.mark.parametrize(("largest", "kept"), [(232, [UNIQUE_ID, TLS]), (62, [UNIQUE_ID]), (0, [])])
def test_tlvs_are_passed_on(own_rig: Rig, largest: int, kept: list[Tlv]) -> None:
    own_rig.start(
        *("--client-ip", "proxy-v2", "--accept-proxy", "::1", "--pass-tlvs", str(largest))
    )
    plain = write_v2(SOURCE, DIALLED)
    client = own_rig.connect("::1")
    client.sendall(add_tlvs(plain, TLS.packed() + UNIQUE_ID.packed(), 999) + b"payload")
    target = own_rig.accept()
    header = add_tlvs(plain, b"".join(tlv.packed() for tlv in kept), 999)
    assert read_exactly(target, len(header) + 7) == header + b"payload"
    assert [*each_tlv(header[52:])] == kept


def test_a_larger_head_by_option(own_rig: Rig, web: Rig) -> None:
    cookie = get("/", "Cookie: " + "x" * 20_000)
    client = web.connect()
    client.sendall(cookie)
    assert answer_of(client)[0] == 431
    own_rig.start("--client-ip", "x-forwarded-for", "--max-head", "32k")
    _, _, head = asked(own_rig, cookie)
    assert len(head) > 20_000
