"""Limits at their last byte, and the quick paths: that they are taken, and when they must not."""

from __future__ import annotations

import gc

import pytest

from tests.support.http_reading import CLIENT, DIALLED, XFF, feed, maker
from tests.unit.client_ip.http_samples import HOST, chunked, get, with_field
from v6fwd.client_ip.http import crosscheck, memo
from v6fwd.client_ip.http.address import AddressFields
from v6fwd.client_ip.http.crosscheck import compare as check
from v6fwd.client_ip.http.fields import FieldReader, Fields
from v6fwd.client_ip.http.framing import MEMO_SIZE
from v6fwd.client_ip.http.memo import USUAL_BLOCK, FieldMemo
from v6fwd.client_ip.http.request_head import MAX_EMPTY_LINES
from v6fwd.client_ip.http.requests import RequestStream
from v6fwd.client_ip.http.responses import ResponseStream
from v6fwd.client_ip.http.syntax import HttpRefused, HttpRules, Kind

EMPTY = b"\r\n"


def stream() -> RequestStream:
    """A stream of an untrusted client."""
    return RequestStream(HttpRules(XFF), CLIENT, DIALLED, trusted=False)


# ---- limits ---------------------------------------------------------------------------------


def test_four_empty_lines_are_the_most() -> None:
    """Each line counts once, and a request begins the count anew."""
    assert MAX_EMPTY_LINES == 4
    fine = feed(maker(), [4 * EMPTY + get() + 4 * EMPTY + get()])
    assert fine.refused is None
    assert len(fine.begun) == 2
    refused = feed(maker(), [4 * EMPTY, EMPTY]).refused
    assert refused == HttpRefused(400, "empty lines before a request")


def test_a_request_line_has_8190_bytes_at_most() -> None:
    """In one piece and with its end in the next."""
    longest = b"GET /".ljust(8190 - len(b" HTTP/1.1"), b"a") + b" HTTP/1.1"
    assert len(longest) == 8190
    for parts in ([get(line=longest)], [longest, get(line=longest)[8190:]]):
        fine = feed(maker(), parts)
        assert fine.refused is None
        assert len(fine.begun) == 1
    endless = stream()
    endless.receive(b"GET /".ljust(8191, b"a"))
    assert endless.refused is None
    endless.receive(b"a")
    assert endless.refused == HttpRefused(414, "request line too long")
    above = longest.replace(b"/a", b"/aa")
    assert feed(maker(), [get(line=above)]).refused == HttpRefused(414, "request line too long")


@pytest.mark.parametrize(("status", "switches"), [(200, True), (299, True), (300, False)])
def test_which_answers_to_connect_open_a_tunnel(status: int, switches: bool) -> None:
    """RFC 9110, 9.3.6: any of 2xx."""
    one = ResponseStream()
    one.expect(Kind.CONNECT)
    one.receive(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % status)
    assert one.switched is switches
    assert one.answered_upgrade is not switches


def test_a_length_is_a_number_of_63_bits() -> None:
    most = 2**63 - 1
    one = stream()
    one.receive(get(HOST + b"Content-Length: %d\r\n" % most))
    assert one.refused is None
    assert one.passing == most
    above = stream()
    above.receive(get(HOST + b"Content-Length: %d\r\n" % (most + 1)))
    assert above.refused is not None


# ---- what a proxy tells ---------------------------------------------------------------------


def test_what_a_proxy_did_not_tell_is_added() -> None:
    """A trusted client that knows of one field only: the others are what was seen here."""
    fields = AddressFields(CLIENT, DIALLED, forwarded=False, trusted=True)
    lines = fields.for_request({b"x-forwarded-host": [b"shop"]}, b"h")
    assert sorted(lines.split(b"\r\n")) == [
        b"",
        b"X-Forwarded-For: 2001:db8:1::2",
        b"X-Forwarded-Host: shop",
        b"X-Forwarded-Port: 8080",
        b"X-Forwarded-Proto: http",
        b"X-Real-IP: 2001:db8:1::2",
    ]


# ---- a request that turns out bad behind its head -------------------------------------------


@pytest.mark.parametrize("before", [b"", get(), chunked(b"0\r\n\r\n")])
def test_a_bad_chunk_takes_its_request_back(before: bytes) -> None:
    """The head came in the same piece: the target sees none of it, and all of what came before."""
    one, whole = stream(), stream()
    expected = whole.receive(before) if before else []
    got = one.receive(before + chunked(b"zz\r\n"))
    assert one.refused == HttpRefused(400, "malformed chunk")
    assert b"".join(got) == b"".join(expected)
    assert one.begun == whole.begun
    assert not one.in_body


def test_a_bad_chunk_later_takes_nothing_back() -> None:
    """The target has had the head: the flow has to cut the connection to it."""
    one = stream()
    one.receive(chunked(b"5\r\nhello\r\n"))
    assert not one.receive(b"zz\r\n")
    assert one.begun == [Kind.PLAIN]
    assert one.in_body


@pytest.mark.parametrize("pieces", [(b"\0",), (b"A: b\0",), (b"\r", b"X"), (b"A", b"\n")])
def test_a_bad_byte_in_a_trailer_is_refused_at_once(pieces: tuple[bytes, ...]) -> None:
    """Whether or not the trailer will ever be whole, and wherever it is cut."""
    one = stream()
    one.receive(chunked(b"0\r\n"))
    for piece in pieces:
        assert one.refused is None
        one.receive(piece)
    assert one.refused == HttpRefused(400, "malformed trailer field")


@pytest.mark.parametrize("begun", [b"G", b"GET / HT", b"GET / HTTP/1.1\r\nA: b"])
@pytest.mark.parametrize("before", [b"", get()])
def test_a_bad_byte_in_a_head_is_refused_at_once(before: bytes, begun: bytes) -> None:
    """Behind another request, too: what was searched counts from where the head begins."""
    one = stream()
    one.receive(before + begun)
    assert one.refused is None
    one.receive(b"\0")
    assert one.refused is not None


def test_a_bad_byte_that_comes_with_the_last_chunk() -> None:
    one = stream()
    one.receive(chunked(b"0\r\n\0"))
    assert one.refused == HttpRefused(400, "malformed trailer field")


# ---- quick paths ----------------------------------------------------------------------------


def test_a_usual_request_takes_the_quick_path() -> None:
    """After one request each that follows in one piece, whatever its fields."""
    one = stream()
    assert one.one(get()) is None
    assert one.receive(get())
    assert one.one(get()) is not None
    assert one.one(with_field(b"Cookie: new")) is not None
    assert one.one(get(line=b"HEAD / HTTP/1.1")) == (
        stream().receive(get(line=b"HEAD / HTTP/1.1"))[0],
        Kind.HEAD,
    )


def padded(size: int) -> bytes:
    """A request of this size."""
    return with_field(b"A: ".ljust(size - len(with_field(b"")), b"a"))


def test_a_large_request_does_not() -> None:
    one = stream()
    one.receive(get())
    assert len(padded(USUAL_BLOCK)) == USUAL_BLOCK
    assert one.one(padded(USUAL_BLOCK)) is not None
    assert one.one(padded(USUAL_BLOCK + 1)) is None


@pytest.mark.parametrize(
    "data",
    [get() + get(), get() + b"x", get()[:-1], get(line=b"GET http://a/ HTTP/1.1"), b"x" + get()],
)
def test_what_is_not_one_request_takes_the_long_way(data: bytes) -> None:
    one = stream()
    one.receive(get())
    assert one.one(data.replace(b"\r\nHost", b"\r\nD: e\r\nHost")) is None


def test_the_same_block_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And again where the block or the version is another one."""
    checked: list[object] = []
    monkeypatch.setattr(memo, "check", lambda *args: checked.append(args[1]))
    address = AddressFields(CLIENT, DIALLED, forwarded=False, trusted=False)
    fields = FieldMemo(FieldReader(address, keep_underscores=False))
    block, other = b"\r\nHost: a\r\nA: \r\n\r\n", b"\r\nHost: b\r\nA: \r\n\r\n"
    for each, minor in ((block, b"1"), (block, b"1"), (other, b"1"), (other, b"0"), (block, b"1")):
        assert fields.read(each, b"GET", b"/", minor).host == each[8:9]
    assert checked == [block, other, other, block]


def test_what_both_readings_agreed_on_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """By odd names and what frames the message; long blocks and CONNECT are asked about always."""
    asked: list[bytes] = []
    monkeypatch.setattr(crosscheck, "compare", lambda *args: asked.append(args[1]))
    monkeypatch.setattr(crosscheck, "_agreed", set())
    address = AddressFields(CLIENT, DIALLED, forwarded=False, trusted=False)
    reader = FieldReader(address, keep_underscores=False)

    def ask(block: bytes, method: bytes = b"GET") -> int:
        before = len(asked)
        crosscheck.check((method, b"/", b"1"), block, reader.read(block[2:], b"1"))
        return len(asked) - before

    short, other = b"\r\nHost: a\r\n\r\n", b"\r\nHost: a\r\nB.b: c\r\n\r\n"
    assert ask(b"\r\nHost: a\r\nB-b: c\r\n\r\n") == 1
    assert ask(short) == 0
    crosscheck._agreed.clear()
    assert [ask(short), ask(short)] == [1, 0]
    assert [ask(other), ask(other), ask(short, b"CONNECT"), ask(short)] == [1, 0, 1, 0]
    long = b"\r\nHost: b\r\nC: " + b"d" * MEMO_SIZE + b"\r\n\r\n"
    assert [ask(long), ask(long)] == [1, 1]


def test_what_one_connection_asked_changes_no_verdict_on_another() -> None:
    """llhttp reads Proxy-Connection as Connection; it is dropped here."""
    field = b"Proxy-Connection: %b"
    refused = HttpRefused(400, "head read in two ways")
    for value, verdict in ((b"keep-alive", None), (b"close", refused), (b"keep-alive", None)):
        one = stream()
        one.receive(with_field(field % value))
        assert one.refused == verdict


@pytest.mark.parametrize("have", [0, 1, 4, 5])
def test_a_usual_response_takes_the_quick_path(have: int) -> None:
    """Whole or begun; what is still to come passes untouched."""
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    one = ResponseStream()
    one.expect(Kind.PLAIN)
    one.expect(Kind.PLAIN)
    assert one.one(whole[: len(whole) - 5 + have])
    assert one.passing == 5 - have
    assert one.outstanding == 1 + (have < 5)
    assert one.began == (have < 5)


def test_a_response_and_a_byte_more_does_not() -> None:
    one = ResponseStream()
    one.expect(Kind.PLAIN)
    assert not one.one(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!")
    assert one.outstanding == 1
    assert not one.passing


# ---- memory ---------------------------------------------------------------------------------


def test_the_second_reading_leaves_nothing_for_the_collector() -> None:
    """The parser has hold of its listener and that of the parser: collections cost every client."""
    fields = Fields(b"", 0, b"a", False, False, False)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            check((b"GET", b"/", b"1"), b"\r\nHost: a\r\n\r\n", fields, [(b"Host", b"a")])
        assert gc.collect() == 0
    finally:
        gc.enable()
