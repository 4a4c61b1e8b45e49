"""What holds for any bytes and any cuts.

Requests: what comes out is read by h11 as exactly the requests that were let through, each
with exactly one address, the true one; and cuts never change what comes out. Responses: what
comes out is by the letter and stays so, is what went in where that was by the letter, up to the
first fault, which cuts do not move; and h11 finds as many responses in it as were told.
"""

from __future__ import annotations

import h11
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tests.support.http_reading import (
    FORWARDED,
    XFF,
    Outcome,
    assert_agreed,
    feed,
    h11_requests,
    hurry,
    maker,
    stdlib_fields,
)
from tests.unit.client_ip.http_samples import BAD_BODIES, BAD_HEADS, GOOD, HOST, chunked, get
from v6fwd.client_ip.budget import UNBOUNDED, TimeBudget
from v6fwd.client_ip.http.responses import UNTIL_EOF, ResponseStream
from v6fwd.client_ip.http.syntax import Kind
from v6fwd.model import ClientIP, OnOpaque

EXAMPLES = settings(max_examples=400, deadline=None)

# Shreds of requests: alone nearly all are harmless, together they are what smuggling is made of.
_SHREDS = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\0", b",", b";", b"0", b"5", b"\xff", b"_"),
    *(b"GET / HTTP/1.1\r\n", b"HEAD /x HTTP/1.1\r\n", b"POST / HTTP/1.0\r\n", b"\r\n\r\n"),
    *(b"OPTIONS * HTTP/1.1\r\n", b"GET http://a/ HTTP/1.1\r\n", b"CONNECT a:1 HTTP/1.1\r\n"),
    *(b"Host: a\r\n", b"Host:", b"Content-Length: 5\r\n", b"Content-Length:", b"hello"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding:", b"chunked", b"identity"),
    *(b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection:", b"upgrade"),
    *(b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n"),
    *(b"X-Forwarded-For: 1\r\n", b"X_Real_IP: 1\r\n", b"Forwarded: for=1\r\n", b"A: b\r\n"),
    *(b"5\r\nhello\r\n", b"5;a=b\r\nhello\r\n", b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"\x16\x03"),
]
_WHOLE = [raw for raw, _ in GOOD.values() if len(raw) < 1000]
_WHOLE += [raw for raw, *_ in (BAD_HEADS | BAD_BODIES).values() if len(raw) < 1000]

_NAMES = st.one_of(
    st.sampled_from(
        b"Host Content-Length Transfer-Encoding Connection Upgrade X-Forwarded-For Forwarded"
        b" X-Real-IP TE Trailer Expect Keep-Alive Cookie X_A".split(b" ")
    ),
    st.binary(max_size=6),
)
_VALUES = st.one_of(
    st.sampled_from(
        b"a 5 0 chunked close keep-alive upgrade,close websocket h2c trailers 100-continue".split()
    ),
    st.binary(max_size=8),
)
_FIELDS = st.lists(
    st.builds(lambda name, value: name + b": " + value + b"\r\n", _NAMES, _VALUES), max_size=6
).map(b"".join)
_LINES = st.builds(
    lambda method, target, version: b"%b %b HTTP/%b" % (method, target, version),
    st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS", b"BREW", b"CONNECT"]),
    st.sampled_from([b"/", b"/x?y", b"*", b"http://a/", b"a:1", b"//"]),
    st.sampled_from([b"1.1", b"1.1", b"1.0"]),
)
_MADE = st.builds(lambda line, fields: get(b"Host: a\r\n" + fields, line), _LINES, _FIELDS)
REQUESTS = st.one_of(
    st.lists(st.one_of(st.sampled_from(_SHREDS), _MADE), max_size=20).map(b"".join),
    st.lists(st.sampled_from(_WHOLE), max_size=4).map(b"".join),
    st.builds(
        lambda raw, at, new: raw[: at % len(raw)] + new + raw[at % len(raw) + 1 :],
        st.sampled_from(_WHOLE),
        st.integers(0, 999),
        st.one_of(st.binary(max_size=2), st.sampled_from(_SHREDS)),
    ),
    st.binary(max_size=40),
)
CUTS = st.lists(st.integers(1, 60), max_size=40)
MODES = st.sampled_from([XFF, FORWARDED])


def cut(raw: bytes, lengths: list[int]) -> list[bytes]:
    """The bytes in pieces of these lengths, the rest in one."""
    parts = []
    at = 0
    for length in lengths:
        parts.append(raw[at : at + length])
        at += length
    return [*parts, raw[at:]]


@EXAMPLES
@given(REQUESTS, MODES, st.booleans())
@example(chunked(b"1;a\r\nx\r\n0\r\nX-Forwarded-For: 1\r\n\r\n") + get(), XFF, False)
def test_h11_reads_what_was_let_through(raw: bytes, mode: ClientIP, keep: bool) -> None:
    outcome = feed(maker(mode, keep_underscores=keep), [raw])
    requests = assert_agreed(outcome, mode)
    if requests and outcome.refused is None:
        assert stdlib_fields(outcome.out.partition(b"\r\n\r\n")[0]) == requests[0].fields


@EXAMPLES
@given(REQUESTS, CUTS, st.booleans(), st.booleans())
def test_cuts_never_change_what_comes_out(
    raw: bytes, lengths: list[int], pass_opaque: bool, trusted: bool
) -> None:
    on_opaque = OnOpaque.PASS if pass_opaque else OnOpaque.REFUSE
    make = maker(XFF, on_opaque=on_opaque, trusted=trusted)
    whole = feed(make, [raw])
    parts = cut(raw, lengths)
    single = [raw[at : at + 1] for at in range(len(raw))]
    for way, splice in ((parts, 0), (parts, 1), (parts, 2), (single, 0)):
        again = feed(make, way, splice=splice)
        assert_same(again, whole)
    hurried = maker(XFF, on_opaque=on_opaque, trusted=trusted, hurried=True)
    assert_same(feed(hurried, [raw]), whole)
    assert_same(feed(hurried, parts), whole)


def assert_same(again: Outcome, whole: Outcome) -> None:
    """The same came out, however it was cut and however often the reader was interrupted."""
    if whole.refused is None:
        assert again == whole
    else:  # a head that came before its bad chunk is out; together with it nothing is
        assert again.refused == whole.refused
        assert again.out.startswith(whole.out)
        assert not any(one.whole for one in h11_requests(again.out[len(whole.out) :]))


@EXAMPLES
@given(st.binary(max_size=60), MODES)
def test_a_proxy_cannot_hide_what_is_appended(value: bytes, mode: ClientIP) -> None:
    """Whatever list a trusted client sends: its own address stands last, and alone."""
    name = b"Forwarded" if mode is FORWARDED else b"X-Forwarded-For"
    assume(b"\r\n\r\n" not in value + b"\r\n")  # the head would end there
    outcome = feed(maker(mode, trusted=True), [get(HOST + name + b": " + value + b"\r\n")])
    if outcome.refused is None:
        last = outcome.out.split(b"\r\n%b: " % name)[-1].partition(b"\r\n")[0]
        own = b'for="[2001:db8:1::2]:54321";proto=http;host=example.com'
        expected = own if mode is FORWARDED else b"2001:db8:1::2"
        assert last == expected or last.endswith(b", " + expected)
        before = last.removesuffix(expected)
        assert before.replace(b'\\"', b"").count(b'"') % 2 == 0
    else:
        assert outcome.out == b""


@EXAMPLES
@given(REQUESTS, REQUESTS)
def test_nothing_depends_on_what_came_before(first: bytes, second: bytes) -> None:
    """Behind a whole request everything is read as it is alone."""
    alone = feed(maker(), [second])
    before = feed(maker(), [get()])
    behind = feed(maker(), [get() + second])
    if second.startswith((b"\x16", b"PRI")):  # is only told at the start of a connection
        return
    expected = Outcome(before.out + alone.out, before.begun + alone.begun, alone.refused, False)
    assert behind == expected
    assert feed(maker(), [first, b""]) == feed(maker(), [b"", first])


# ---- responses -------------------------------------------------------------------------------

_ANSWERS = [
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 \r\n", b"HTTP/1.1 304\r\n"),
    *(b"HTTP/1.1 100 \r\n\r\n", b"HTTP/1.1 101 \r\n\r\n", b"HTTP/1.1 403 No\r\n"),
    *(b"Content-Length: 5\r\n", b"content-length:5\r\n", b"Content-Length: 0\r\n\r\n", b"hello"),
    *(b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n", b"5;a\r\nhello\r\n", b"0\r\n\r\n"),
    *(b"0\r\nA: b\r\n\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"A: b\r\n"),
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b" ", b"HTTP/1.1 ", b":", b"\xff"),
    *(b"HTTP/2.0  200 \n", b"Content-Length: 5, 5\n", b"Content-Length : 05\r\n", b" x\r\n"),
    *(b"Transfer-Encoding: chunked,\n\n", b"5 \r\nhello\n", b"1;\n", b"0 \n\n", b"0\nA: b\n\n"),
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
]
RESPONSES = st.one_of(
    st.lists(st.sampled_from(_ANSWERS), max_size=14).map(b"".join), st.binary(max_size=40)
)
KINDS = st.lists(st.sampled_from(Kind), max_size=4)


def answers(
    kinds: list[Kind], parts: list[bytes], budget: TimeBudget = UNBOUNDED
) -> tuple[bytes, ResponseStream]:
    """What a stream lets through of these parts, and the stream."""
    stream = ResponseStream(budget)
    for kind in kinds:
        stream.expect(kind)
    out: list[bytes] = []
    for part in parts:
        out += map(bytes, stream.receive(part))
        while stream.more:
            out += map(bytes, stream.receive(b""))
    return b"".join(out), stream


def state(stream: ResponseStream) -> tuple[object, ...]:
    """All that a caller sees."""
    seen = (stream.outstanding, stream.passing, stream.error, stream.began)
    return (*seen, stream.switched, stream.answered_upgrade, stream.is_spent, stream.ended())


@EXAMPLES
@given(RESPONSES, KINDS, CUTS)
@example(b"HTTP/1.1 200 OK\n\r\n", [Kind.PLAIN], [])
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n", [Kind.PLAIN], [])
def test_cuts_never_change_an_answer(raw: bytes, kinds: list[Kind], lengths: list[int]) -> None:
    out, whole = answers(kinds, [raw])
    parts = cut(raw, lengths)
    expected = state(whole)
    ways = [(parts, UNBOUNDED), ([raw[at : at + 1] for at in range(len(raw))], UNBOUNDED)]
    for way, budget in (*ways, ([raw], hurry()), (parts, hurry())):
        again, stream = answers(kinds, way, budget)
        assert again == out
        assert state(stream) == expected


@EXAMPLES
@given(RESPONSES, KINDS)
def test_what_comes_out_is_by_the_letter(raw: bytes, kinds: list[Kind]) -> None:
    """So whoever reads it next changes nothing, and finds in it what was found here."""
    out, whole = answers(kinds, [raw])
    again, stream = answers(kinds, [out])
    assert again == out
    assert not stream.error
    if not whole.is_spent:  # a stricter reader does not know of the doubt
        assert (stream.outstanding, stream.passing) == (whole.outstanding, whole.passing)
    assert (stream.switched, stream.is_spent) == (whole.switched, False)
    if whole.switched or whole.passing == UNTIL_EOF:
        assert raw.endswith(out.rpartition(b"\r\n\r\n")[2])


@EXAMPLES
@given(st.lists(st.sampled_from(_ANSWERS), max_size=10).map(b"".join), st.booleans())
def test_h11_finds_as_many_responses(raw: bytes, head: bool) -> None:
    """One at a time, as h11 is a client that has asked for one thing."""
    out, stream = answers([Kind.HEAD if head else Kind.PLAIN], [raw])
    complete = stream.outstanding == 0
    if stream.error and not complete:
        return
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="HEAD" if head else "GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    if out:  # to h11 no bytes are an end
        client.receive_data(out)
    ended = False
    while not ended:
        event = client.next_event()
        if event is h11.NEED_DATA:
            break
        ended = isinstance(event, h11.EndOfMessage)
    assert ended is complete
    assert client.trailing_data[0] == b""
