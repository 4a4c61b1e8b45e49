"""Requests, good and bad: whole, byte by byte, cut at each position, piped behind another.

What comes out is read by h11 and the standard library (tests/support/http_reading.py).
"""

from __future__ import annotations

import pytest

from tests.support.http_reading import (
    CLIENT,
    DIALLED,
    FORWARDED,
    XFF,
    Outcome,
    assert_agreed,
    every_cut,
    feed,
    h11_requests,
    maker,
    stdlib_fields,
)
from tests.unit.client_ip.http_samples import (
    BAD_BODIES,
    BAD_HEADS,
    GOOD,
    HOST,
    Bad,
    get,
    with_field,
)
from v6fwd.client_ip.http.chunks import FREE_EXTENSIONS
from v6fwd.client_ip.http.request_line import H2_PREFACE
from v6fwd.client_ip.http.requests import RequestStream
from v6fwd.client_ip.http.syntax import HttpRefused, HttpRules, Kind
from v6fwd.model import ClientIP, OnOpaque

WEBSOCKET = with_field(b"Connection: Upgrade\r\nUpgrade: websocket")
POST = get(HOST + b"Content-Length: 10\r\n", b"POST / HTTP/1.1")
FRONT = get(b"Host: front\r\n", b"GET /front HTTP/1.1")
MAKE = maker()

good = pytest.mark.parametrize(("raw", "count"), GOOD.values(), ids=GOOD.keys())
BAD = BAD_HEADS | BAD_BODIES
bad = pytest.mark.parametrize("sample", BAD.values(), ids=BAD.keys())


@good
@pytest.mark.parametrize("mode", [XFF, FORWARDED])
def test_good_requests_pass(raw: bytes, count: int, mode: ClientIP) -> None:
    outcome = feed(maker(mode), [raw])
    assert outcome.refused is None
    requests = assert_agreed(outcome, mode)
    assert len(requests) == count
    assert all(request.whole for request in requests)


@good
def test_cuts_change_nothing(raw: bytes, count: int) -> None:
    whole = feed(MAKE, [raw])
    assert len(whole.begun) == count
    for parts in every_cut(raw):
        assert feed(MAKE, parts) == whole
        assert feed(MAKE, parts, splice=1) == whole
        assert feed(MAKE, parts, splice=2) == whole


@good
def test_good_requests_pass_behind_another(raw: bytes, count: int) -> None:
    outcome = feed(MAKE, [FRONT + raw])
    assert outcome.refused is None
    assert len(assert_agreed(outcome)) == 1 + count


@good
def test_the_standard_library_reads_the_same(raw: bytes, count: int) -> None:
    """Field by field; of the first request, since it reads but one."""
    out = feed(MAKE, [raw]).out
    assert stdlib_fields(out) == h11_requests(out)[0].fields
    assert count


@bad
def test_bad_requests_are_refused(sample: Bad) -> None:
    outcome = feed(MAKE, [sample.raw])
    assert outcome.refused == HttpRefused(sample.status, sample.why)
    assert not any(request.whole for request in assert_agreed(outcome))


@bad
def test_cuts_do_not_change_a_refusal(sample: Bad) -> None:
    whole = feed(MAKE, [sample.raw])
    for parts in every_cut(sample.raw):
        cut = feed(MAKE, parts)
        assert cut.refused == whole.refused
        # a head that came before its bad chunk is out; together with it nothing is
        assert cut == whole or (sample not in BAD_HEADS.values() and not whole.out)
        assert not any(request.whole for request in h11_requests(cut.out))


@pytest.mark.parametrize("sample", BAD_HEADS.values(), ids=BAD_HEADS.keys())
def test_not_a_byte_of_a_bad_head_gets_out(sample: Bad) -> None:
    assert feed(MAKE, [sample.raw]) == Outcome(b"", (), (sample.status, sample.why), False)  # type: ignore[arg-type]


@bad
def test_bad_requests_are_refused_behind_another(sample: Bad) -> None:
    """The one before them is let through, and none behind them."""
    whole = feed(MAKE, [FRONT + sample.raw + FRONT])
    assert whole.refused is not None
    assert whole.refused.status == sample.status
    requests = assert_agreed(whole)
    assert requests[0].target == b"/front"
    assert not any(request.whole for request in requests[1:])
    assert feed(MAKE, [FRONT, sample.raw + FRONT]) == whole
    half = len(FRONT) + len(sample.raw) // 2
    cut = feed(MAKE, [(FRONT + sample.raw)[:half], (FRONT + sample.raw)[half:] + FRONT])
    assert cut.refused == whole.refused
    assert cut.out.startswith(whole.out)
    assert not any(request.whole for request in assert_agreed(cut)[1:])


@bad
def test_nothing_follows_a_refusal(sample: Bad) -> None:
    stream = MAKE()
    stream.receive(sample.raw)
    verdict = stream.refused
    assert stream.receive(FRONT) == []
    assert stream.refused == verdict
    assert not stream.in_head
    assert stream.passing == 0


def test_nothing_passes_behind_a_bad_chunk() -> None:
    """Neither when a part of the chunk was expected to go past the stream."""
    stream = MAKE()
    stream.receive(get(HOST + b"Transfer-Encoding: chunked\r\n") + b"5\r\nhe")
    assert stream.passing == 3
    assert b"".join(bytes(piece) for piece in stream.receive(b"llo!!")) == b"llo"
    assert stream.refused == HttpRefused(400, "malformed chunk")
    assert stream.passing == 0


def test_a_body_goes_on_to_its_last_byte() -> None:
    """The time limit for bodies looks whether one is under way."""
    stream = MAKE()
    stream.receive(get(HOST + b"Content-Length: 3\r\n") + b"ab")
    assert (stream.passing, stream.in_body) == (1, True)
    stream.receive(b"c")
    assert (stream.passing, stream.in_body) == (0, False)


def test_the_same_fields_again_are_written_the_same() -> None:
    """What is remembered gives what was read at first."""
    stream = MAKE()
    first = b"".join(stream.receive(get()))
    again = b"".join(stream.receive(get(line=b"GET /other?x HTTP/1.1")))
    assert again == first.replace(b"GET /", b"GET /other?x", 1)
    assert stream.begun == [Kind.PLAIN, Kind.PLAIN]


@pytest.mark.parametrize(
    ("line", "kind", "refused"),
    [
        (b"HEAD / HTTP/1.1", Kind.HEAD, None),
        (b"HEADER / HTTP/1.1", Kind.PLAIN, None),
        (b"OPTIONS * HTTP/1.1", Kind.PLAIN, None),
        (b"GET http://example.com/ HTTP/1.1", Kind.PLAIN, None),
        (b"GET http://evil/ HTTP/1.1", None, 400),
        (b"CONNECT /x HTTP/1.1", None, 405),
        (b"head / HTTP/1.1", None, 400),
        (b"GET * HTTP/1.1", None, 400),
        (b"GET /#x HTTP/1.1", None, 400),
        (b"GET / HTTP/1.1\r\nA: b", Kind.PLAIN, None),
        (b"GET / HTTP/1.1\r\nHost: b", None, 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 3", Kind.PLAIN, None),
        (b"GET / HTTP/1.1\nA: b", None, 400),
        (b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1", None, 400),
        (b"GET /" + b"x" * 8200 + b" HTTP/1.1", None, 414),
        (b"M" * 8200 + b" / HTTP/1.1", None, 414),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 16400, None, 431),
    ],
)
def test_remembered_fields_excuse_no_line(
    line: bytes, kind: Kind | None, refused: int | None
) -> None:
    """Each line behind a request with the same fields gets the verdict that it gets first."""
    stream = MAKE()
    stream.receive(get())
    stream.begun.clear()
    raw = line + get()[len(b"GET / HTTP/1.1") :]
    out = b"".join(stream.receive(raw))
    alone = feed(MAKE, [raw])
    assert out == alone.out
    assert stream.refused == alone.refused
    assert stream.begun == ([kind] if kind else [])
    assert (stream.refused.status if stream.refused else None) == refused


def test_a_version_is_not_remembered() -> None:
    """HTTP/1.0 with the fields of an HTTP/1.1 request ends the connection, and has no TE."""
    stream = MAKE()
    stream.receive(get())
    stream.receive(get(line=b"GET / HTTP/1.0"))
    assert stream.closing
    stream = MAKE()
    stream.receive(get(HOST + b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n")
    stream.receive(get(HOST + b"Transfer-Encoding: chunked\r\n", b"GET / HTTP/1.0"))
    assert stream.refused == HttpRefused(400, "Transfer-Encoding in HTTP/1.0")


def test_empty_lines_are_counted_from_the_last_request() -> None:
    """However the bytes are cut: remembered fields must not keep the count from going back."""
    stream = MAKE()
    for _ in range(10):
        stream.receive(b"\r\n")
        stream.receive(get())
    assert stream.refused is None
    assert len(stream.begun) == 10


def test_remembered_fields_with_a_body() -> None:
    raw = POST + b"0123456789"
    outcome = feed(MAKE, [raw, raw, POST, b"0123456789" + raw])
    assert [request.body for request in assert_agreed(outcome)] == [b"0123456789"] * 4


def test_a_long_body_may_go_past_the_stream() -> None:
    stream = MAKE()
    pieces = stream.receive(POST + b"abc")
    assert bytes(pieces[-1]) == b"abc"
    assert stream.passing == 7
    assert not stream.is_idle
    stream.passed(5)
    assert stream.passing == 2
    assert [bytes(piece) for piece in stream.receive(b"ij" + get()[:5])] == [b"ij"]
    assert stream.passing == 0
    assert stream.in_head


def test_requests_go_on_behind_a_body_that_went_past() -> None:
    stream = MAKE()
    stream.receive(get())
    stream.receive(POST)
    stream.passed(10)
    assert stream.is_idle
    assert len(stream.receive(get())) == 1
    assert len(stream.begun) == 3


def test_a_long_chunk_may_go_past_the_stream() -> None:
    stream = MAKE()
    stream.receive(get(HOST + b"Transfer-Encoding: chunked\r\n") + b"8;x\r\nab")
    assert stream.passing == 6
    stream.passed(6)
    assert not stream.is_idle
    assert bytes(stream.receive(b"\r\n0\r\n\r\n" + get()[:-1])[0]) == b"\r\n0\r\n\r\n"
    assert stream.in_head


def test_the_pieces_of_a_body_are_not_copied() -> None:
    data = POST + b"0123456789"
    body = MAKE().receive(data)[-1]
    assert isinstance(body, memoryview)
    assert body.obj is data


@pytest.mark.parametrize(
    ("raw", "in_head", "is_idle"),
    [
        (b"", False, True),
        (b"\r", False, False),
        (b"\r\n", False, True),
        (b"G", True, False),
        (b"P", True, False),
        (b"\r\nG", True, False),
        (get()[:-1], True, False),
        (get(), False, True),
        (get() + b"\r\n", False, True),
        (get() + b"X", True, False),
        (POST, False, False),
        (POST + b"0123456789", False, True),
        (get(HOST + b"Transfer-Encoding: chunked\r\n"), False, False),
        (get(HOST + b"Transfer-Encoding: chunked\r\n") + b"5", False, False),
        (get(HOST + b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n", False, True),
        (WEBSOCKET, False, False),
    ],
)
def test_where_the_stream_is(raw: bytes, in_head: bool, is_idle: bool) -> None:
    stream = MAKE()
    stream.receive(raw)
    assert (stream.in_head, stream.is_idle) == (in_head, is_idle)


@pytest.mark.parametrize(
    ("raw", "closing"),
    [
        (get(), False),
        (with_field(b"Connection: close"), True),
        (with_field(b"Connection: keep-alive, CLOSE"), True),
        (with_field(b"Connection: closed"), False),
        (get(HOST, b"GET / HTTP/1.0"), True),
        (get(b"Connection: keep-alive\r\n", b"GET / HTTP/1.0"), False),
    ],
)
def test_which_request_is_the_last(raw: bytes, closing: bool) -> None:
    stream = MAKE()
    stream.receive(raw)
    assert stream.closing is closing
    assert bool(stream.receive(get())) is not closing


# ---- other protocols ----------------------------------------------------------------------------


def test_bytes_wait_while_another_protocol_is_asked_for() -> None:
    stream = MAKE()
    pieces = stream.receive(WEBSOCKET + b"\x81\x00")
    assert len(pieces) == 1
    assert stream.begun == [Kind.UPGRADE]
    assert stream.waiting
    assert stream.receive(b"more") == []
    assert stream.switched() == b"\x81\x00more"
    assert stream.opaque
    assert not stream.waiting
    assert stream.receive(b"\x16GET") == [b"\x16GET"]
    assert stream.switched() == b""


def test_a_refused_upgrade_stays_http() -> None:
    stream = MAKE()
    stream.receive(WEBSOCKET + get() + get()[:9])
    assert [len(bytes(piece)) > len(get()) for piece in stream.stayed()] == [True]
    assert stream.begun == [Kind.UPGRADE, Kind.PLAIN]
    assert not stream.waiting
    assert stream.in_head
    assert len(stream.receive(get()[9:])) == 1


def test_a_refused_upgrade_does_not_excuse_what_follows() -> None:
    stream = MAKE()
    stream.receive(WEBSOCKET + b"\x81\x00")
    assert stream.stayed() == []
    assert stream.refused == HttpRefused(400, "control byte in the head")


def test_fields_with_an_upgrade_are_read_again() -> None:
    outcome = feed(MAKE, [get(), WEBSOCKET])
    assert outcome.begun == (Kind.PLAIN, Kind.UPGRADE)
    stream = MAKE()
    for _ in range(3):
        stream.receive(WEBSOCKET)
        assert stream.waiting
        stream.stayed()
    assert stream.begun == [Kind.UPGRADE] * 3


CONNECT = get(b"Host: a:443\r\n", b"CONNECT a:443 HTTP/1.1")
PASS = maker(on_opaque=OnOpaque.PASS)


def test_connect_where_opaque_connections_pass() -> None:
    outcome = feed(PASS, [CONNECT + b"\x16\x03"])
    assert outcome.begun == (Kind.CONNECT,)
    assert outcome.refused is None
    assert_agreed(outcome)


@pytest.mark.parametrize(
    "raw",
    [
        CONNECT.replace(b"CONNECT a:443", b"CONNECT b:443"),
        CONNECT.replace(b"CONNECT a:443", b"CONNECT a"),
        CONNECT.replace(b"a:443", b"a"),
        CONNECT.replace(b"CONNECT a:443", b"CONNECT http://a:443/"),
        CONNECT.replace(b"CONNECT a:443", b"CONNECT /"),
        CONNECT.replace(b"HTTP/1.1", b"HTTP/1.0"),
        CONNECT[:-2] + b"Content-Length: 1\r\n\r\nx",
        CONNECT[:-2] + b"Transfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_odd_connects_are_refused(raw: bytes) -> None:
    outcome = feed(PASS, [raw])
    assert outcome.out == b""
    assert outcome.refused is not None
    assert outcome.refused.status == 400
    for parts in every_cut(raw):
        assert feed(PASS, parts) == outcome


@pytest.mark.parametrize(
    ("start", "what"), [(b"\x16\x03\x01\x00\x05hello", "TLS"), (H2_PREFACE + b"\0\0", "HTTP/2")]
)
def test_opaque_connections_pass_if_wished(start: bytes, what: str) -> None:
    for parts in [[start], *every_cut(start)]:
        stream = PASS()
        out = b"".join(bytes(piece) for part in parts for piece in stream.receive(part))
        assert out == start
        assert stream.opaque
        assert stream.opaque_why == what
        assert stream.refused is None
        assert stream.receive(get()) == [get()]


@pytest.mark.parametrize("start", [b"\x16\x03\x01\x00\x05hello", H2_PREFACE])
@pytest.mark.parametrize("before", [FRONT, b"\r\n"])
def test_only_a_start_is_opaque(start: bytes, before: bytes) -> None:
    for parts in ([before + start], [before, start]):
        stream = PASS()
        for part in parts:
            stream.receive(part)
        assert not stream.opaque
        assert not stream.opaque_why
        assert stream.refused is not None


@pytest.mark.parametrize(
    ("raw", "what"), [(b"\x16", "TLS"), (H2_PREFACE, "HTTP/2"), (H2_PREFACE[:-1], "")]
)
def test_a_refused_start_is_named(raw: bytes, what: str) -> None:
    stream = MAKE()
    stream.receive(raw)
    assert stream.opaque_why == what
    assert not stream.opaque
    assert bool(stream.refused) is bool(what)


@pytest.mark.parametrize("mode", [ClientIP.NONE, ClientIP.PROXY_V1, ClientIP.PROXY_V2])
def test_rules_are_for_modes_of_http(mode: ClientIP) -> None:
    with pytest.raises(ValueError, match=f"{mode} is not a mode of HTTP"):
        HttpRules(mode)


def test_streams_share_nothing() -> None:
    rules = HttpRules(XFF)
    one = RequestStream(rules, CLIENT, DIALLED, trusted=False)
    other = RequestStream(rules, DIALLED, CLIENT, trusted=False)
    first, second = (b"".join(stream.receive(get())) for stream in (one, other))
    assert b"X-Forwarded-For: 2001:db8:1::2\r\n" in first
    assert b"X-Forwarded-For: 2001:db8:1::1\r\n" in second


# ---- limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [None, 1, 5000])
def test_a_larger_head_by_option(cut: int | None) -> None:
    """Cookies of 20 KiB, as single sign-on makes them."""
    raw = with_field(b"Cookie: " + b"x" * 20_000) + get()
    parts = [raw] if cut is None else [raw[at : at + cut] for at in range(0, len(raw), cut)]
    assert feed(MAKE, parts).refused == HttpRefused(431, "request head too large")
    outcome = feed(maker(max_head=32 * 1024), parts)
    assert len(assert_agreed(outcome)) == 2
    assert outcome.refused is None


@pytest.mark.parametrize(("length", "fits"), [(32 * 1024, True), (32 * 1024 + 1, False)])
def test_the_largest_head(length: int, fits: bool) -> None:
    empty = with_field(b"A: ")
    outcome = feed(maker(max_head=32 * 1024), [with_field(b"A: " + b"x" * (length - len(empty)))])
    assert outcome.refused == (None if fits else HttpRefused(431, "request head too large"))


@pytest.mark.parametrize(("length", "fits"), [(16 * 1024, True), (16 * 1024 + 1, False)])
def test_a_larger_head_has_a_longer_line(length: int, fits: bool) -> None:
    line = b"GET /" + b"x" * (length - 14) + b" HTTP/1.1"
    outcome = feed(maker(max_head=32 * 1024), [get(line=line)])
    assert outcome.refused == (None if fits else HttpRefused(414, "request line too long"))


def test_a_call_ends_when_its_time_is_over() -> None:
    """One part of the work a call: a head, or a chunk that is read by itself."""
    stream = maker(hurried=True)()
    chunks = b"80;a\r\n" + b"x" * 128 + b"\r\n"  # the extension keeps it out of the fast path
    raw = get() + with_field(b"Transfer-Encoding: chunked") + chunks * 2 + b"0\r\n\r\n" + get()
    begun = []
    stream.receive(raw)
    while stream.more:
        begun.append(len(stream.begun))
        assert not stream.is_idle
        assert not stream.in_head
        stream.receive(b"")
    begun.append(len(stream.begun))
    assert begun == [1, 2, 2, 2, 2, 3]
    assert stream.is_idle


def test_without_a_clock_a_call_takes_all() -> None:
    stream = MAKE()
    stream.receive(get() * 50)
    assert (len(stream.begun), stream.more) == (50, False)


def test_extensions_are_bounded_over_all_requests_of_a_connection() -> None:
    body = b"1;ab\r\nx\r\n" * 100 + b"0\r\n\r\n"
    post = with_field(b"Transfer-Encoding: chunked")
    stream = MAKE()
    for _ in range(FREE_EXTENSIONS // 300):
        stream.receive(post + body)
        assert stream.refused is None
    stream.receive(post + body)
    assert stream.refused == HttpRefused(400, "chunk extensions too large")


def test_signatures_of_large_chunks_are_not_bounded() -> None:
    chunk = b"2000;chunk-signature=" + b"a" * 64 + b"\r\n" + bytes(8192) + b"\r\n"
    raw = with_field(b"Transfer-Encoding: chunked") + chunk * 500 + b"0\r\n\r\n"
    assert feed(MAKE, [raw]).refused is None


def test_a_hijacked_connection_switches_behind_its_body() -> None:
    """As `docker exec` asks; the answer may be there before the body is."""
    raw, _ = GOOD["hijack"]
    stream = MAKE()
    stream.receive(raw[:-4])
    assert (stream.waiting, stream.passing) == (False, 1)
    assert stream.begun == [Kind.UPGRADE]
    stream.passed(1)
    assert stream.waiting
    assert stream.receive(b"ls\n") == []
    assert stream.switched() == b"ls\n"
