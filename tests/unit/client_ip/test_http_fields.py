"""The fields of a request: what is dropped, what stays, what is written anew and added."""

from __future__ import annotations

import ipaddress

import pytest

from tests.support.http_reading import (
    CLIENT,
    DIALLED,
    FORWARDED,
    XFF,
    Outcome,
    Request,
    assert_agreed,
    feed,
    h11_requests,
    maker,
)
from tests.unit.client_ip.http_samples import HOST, get, with_field
from v6fwd.client_ip.http.requests import RequestStream
from v6fwd.client_ip.http.syntax import HttpRefused, HttpRules
from v6fwd.model import Address, ClientIP

UNTRUSTED = [maker(XFF), maker(FORWARDED), maker(XFF, keep_underscores=True)]


def the_one(outcome: Outcome) -> Request:
    """The request that was let through."""
    assert outcome.refused is None
    (request,) = h11_requests(outcome.out)
    return request


def names(raw: bytes, mode: ClientIP = XFF, **options: bool) -> list[bytes]:
    """The names of the fields that the target gets, but for Host and those that are added."""
    request = the_one(feed(maker(mode, **options), [raw]))
    added = (b"host", b"x-forwarded-", b"x-real-ip", b"forwarded")
    return [name for name, _ in request.fields if not name.startswith(added)]


@pytest.mark.parametrize(
    "name",
    [
        b"X-Forwarded-For",
        b"x-forwarded-for",
        b"X-FORWARDED-FOR",
        b"X_Forwarded_For",
        b"X-Forwarded_For",
        b"X.Forwarded.For",
        b"X~Forwarded|For",
        b"X-Forwarded-Proto",
        b"X-Forwarded-Port",
        b"X-Forwarded-Host",
        b"X-Forwarded-Server",
        b"X_Forwarded_Proto",
        b"X-Forwarded",
        b"X-Forwarded-For-",
        b"X-Real-IP",
        b"X_Real_IP",
        b"x!real!ip",
        b"Forwarded",
        b"forwarded",
        b"FORWARDED",
        b"Forwarded-For",
        b"Forwarded_For",
        b"Forwarded_",
    ],
)
@pytest.mark.parametrize("mode", [XFF, FORWARDED])
@pytest.mark.parametrize("keep_underscores", [False, True])
def test_what_tells_an_address_is_removed(
    name: bytes, mode: ClientIP, keep_underscores: bool
) -> None:
    field = name + b": for=192.0.2.66\r\n"
    make = maker(mode, keep_underscores=keep_underscores)
    for raw in (
        get(field + HOST),
        get(HOST + field + field),
        with_field(field + b"Connection: keep-alive, " + name),
    ):
        outcome = feed(make, [raw])
        assert b"192.0.2.66" not in outcome.out
        assert len(assert_agreed(outcome, mode)) == 1


@pytest.mark.parametrize("name", [b"X-Forwarded-For", b"X-Real-IP", b"Forwarded", b"Host"])
@pytest.mark.parametrize("mode", [XFF, FORWARDED])
def test_naming_a_field_in_connection_drops_none_of_ours(name: bytes, mode: ClientIP) -> None:
    outcome = feed(maker(mode), [with_field(b"Connection: close, " + name)])
    (request,) = assert_agreed(outcome, mode)
    assert request.all(b"connection") == [b"close"]
    assert request.all(b"host") == [b"example.com"]


@pytest.mark.parametrize(
    "name",
    [
        b"Content_Length",
        b"Content.Length",
        b"Transfer_Encoding",
        b"Transfer~Encoding",
        b"Proxy_Connection",
        b"HTTP2_Settings",
        b"Keep_Alive",
        b"Keep!Alive",
        b"Keep-Alive",
        b"Proxy-Connection",
        b"HTTP2-Settings",
        b"Trailer",
    ],
)
@pytest.mark.parametrize("keep_underscores", [False, True])
def test_what_is_for_this_hop_or_spelt_like_framing_is_dropped(
    name: bytes, keep_underscores: bool
) -> None:
    raw = with_field(name + b": chunked\r\nA: b")
    assert names(raw, keep_underscores=keep_underscores) == [b"a"]


def test_underscores() -> None:
    raw = with_field(b"X_Y: z\r\nX-Y: z\r\n_: z")
    assert names(raw) == [b"x-y"]
    assert names(raw, keep_underscores=True) == [b"x_y", b"x-y", b"_"]


def test_other_fields_stay_in_their_order() -> None:
    raw = with_field(b"Cookie: a\r\nB:\t1 \r\nb: 2\r\nCookie: c\r\nProxy-Authorization: x\r\nDate:")
    request = the_one(feed(maker(), [raw]))
    assert request.fields[:7] == [
        (b"host", b"example.com"),
        (b"cookie", b"a"),
        (b"b", b"1"),
        (b"b", b"2"),
        (b"cookie", b"c"),
        (b"proxy-authorization", b"x"),
        (b"date", b""),
    ]
    assert len(request.fields) == 11


def test_names_keep_their_case() -> None:
    """Nobody should depend on it, and some do."""
    assert b"\r\nX-CamelCase:a\r\n" in feed(maker(), [with_field(b"X-CamelCase:a")]).out


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        (b"Connection: X-A", [b"x-b"]),
        (b"Connection: x-b, X-A", []),
        (b"Connection: close\r\nConnection: x-b", [b"x-a"]),
        (b"Connection: x", [b"x-a", b"x-b"]),
        (b"Connection:", [b"x-a", b"x-b"]),
    ],
)
def test_what_connection_names_is_for_this_hop(sent: bytes, left: list[bytes]) -> None:
    found = names(with_field(b"X-A: 1\r\nX-B: 2\r\n" + sent))
    assert [name for name in found if name != b"connection"] == left


def test_a_proxy_cannot_be_made_to_drop_what_it_added() -> None:
    """Many pass on the Connection of their own clients."""
    make = maker(trusted=True)
    raw = with_field(
        b"X-User: me\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: x-user, x-forwarded-for"
    )
    request = the_one(feed(make, [raw]))
    assert request.all(b"x-user") == [b"me"]
    assert request.all(b"x-forwarded-for") == [b"192.0.2.1, 2001:db8:1::2"]


@pytest.mark.parametrize(
    ("sent", "connection", "upgrade", "te"),
    [
        (b"Connection: close", b"close", None, None),
        (b"Connection: Close, keep-alive", b"close", None, None),
        (b"Connection: Keep-Alive, x", b"keep-alive", None, None),
        (b"Connection: x, ,y", None, None, None),
        (b"Connection: ", None, None, None),
        (b"Connection: upgrade", None, None, None),
        (b"Upgrade: websocket", None, None, None),
        (b"Upgrade: websocket\r\nConnection: x", None, None, None),
        (b"Upgrade: websocket\r\nConnection: Upgrade", b"upgrade", b"websocket", None),
        (b"Upgrade: a/1,b\r\nUpgrade: c\r\nConnection: upgrade", b"upgrade", b"a/1, b, c", None),
        (b"Upgrade: h2c\r\nConnection: upgrade, HTTP2-Settings", None, None, None),
        (b"Upgrade: websocket, H2C\r\nConnection: upgrade", b"upgrade", b"websocket", None),
        (b"Upgrade: h2c-14, h2,HTTP/2.0\r\nConnection: upgrade", None, None, None),
        (b"Upgrade: TLS/1.0, tls/1.3,TLS\r\nConnection: upgrade", None, None, None),
        (b"Upgrade:\r\nConnection: upgrade", None, None, None),
        (b"TE: trailers", None, None, None),
        (b"TE: Trailers\r\nConnection: te", b"TE", None, b"trailers"),
        (b"TE: trailers, gzip\r\nConnection: TE", None, None, None),
        (b"TE: trailers\r\nTE: trailers\r\nConnection: TE", None, None, None),
        (b"TE: trailers\r\nConnection: TE, close", b"close, TE", None, b"trailers"),
    ],
)
def test_connection_is_written_anew(
    sent: bytes, connection: bytes | None, upgrade: bytes | None, te: bytes | None
) -> None:
    request = the_one(feed(maker(), [with_field(sent)]))
    for name, value in ((b"connection", connection), (b"upgrade", upgrade), (b"te", te)):
        assert request.all(name) == ([] if value is None else [value])


def test_expect_goes_through() -> None:
    request = the_one(feed(maker(), [with_field(b"Expect:  100-CONTINUE ")]))
    assert request.all(b"expect") == [b"100-continue"]


def test_http_1_0_expects_nothing() -> None:
    raw = get(HOST + b"Expect: 100-continue\r\n", b"POST / HTTP/1.0")
    assert the_one(feed(maker(), [raw])).all(b"expect") == []


def test_framing_is_written_anew() -> None:
    out = feed(maker(), [with_field(b"content-length:\t3")]).out
    assert b"\r\nContent-Length: 3\r\n" in out
    out = feed(maker(), [with_field(b"TRANSFER-ENCODING:\tChunked ")]).out
    assert b"\r\nTransfer-Encoding: chunked\r\n" in out


@pytest.mark.parametrize(
    ("host", "told"),
    [
        (b"example.com", b";host=example.com"),
        (b"my_host", b";host=my_host"),
        (b"example.com:81", b';host="example.com:81"'),
        (b"[2001:db8::1]", b';host="[2001:db8::1]"'),
        (b"a;proto=x", b';host="a;proto=x"'),
        (b"a()=b", b';host="a()=b"'),
        (b"", b""),
    ],
)
def test_forwarded_tells_the_host(host: bytes, told: bytes) -> None:
    request = the_one(feed(maker(FORWARDED), [get(b"Host: " + host + b"\r\n")]))
    assert request.all(b"forwarded") == [b'for="[2001:db8:1::2]:54321";proto=http' + told]


@pytest.mark.parametrize("behind", [b"", b"TE:\r\n"])
@pytest.mark.parametrize(("size", "refused"), [(262, False), (263, True)])
def test_the_longest_host(size: int, refused: bool, behind: bytes) -> None:
    """A name of 253 bytes with dots, a colon and a port; the usual way and the other."""
    host = b"a" * (size - 6) + b":65535"
    outcome = feed(maker(XFF), [get(b"Host: " + host + b"\r\n" + behind)])
    assert (outcome.refused is not None) == refused


def test_forwarded_without_a_host() -> None:
    request = the_one(feed(maker(FORWARDED), [get(b"", b"GET / HTTP/1.0")]))
    assert request.all(b"forwarded") == [b'for="[2001:db8:1::2]:54321";proto=http']


@pytest.mark.parametrize(
    ("address", "host", "node"),
    [
        ("192.0.2.7", b"192.0.2.7", b"192.0.2.7:54321"),
        ("2001:DB8:0:0:1:0:0:1", b"2001:db8::1:0:0:1", b"[2001:db8::1:0:0:1]:54321"),
        ("::1", b"::1", b"[::1]:54321"),
        ("fe80::1", b"fe80::1", b"[fe80::1]:54321"),
    ],
)
def test_addresses_are_written_as_rfc_5952_has_them(address: str, host: bytes, node: bytes) -> None:
    client = Address.of(ipaddress.ip_address(address).packed, 54321)

    def make(mode: ClientIP) -> RequestStream:
        return RequestStream(HttpRules(mode), client, DIALLED, trusted=False)

    request = the_one(feed(lambda: make(XFF), [get()]))
    assert request.all(b"x-forwarded-for") == request.all(b"x-real-ip") == [host]
    request = the_one(feed(lambda: make(FORWARDED), [get()]))
    assert request.all(b"forwarded")[0].startswith(b'for="' + node + b'";')


def test_a_mapped_client_is_an_ipv4_client() -> None:
    client = Address.of(ipaddress.ip_address("::ffff:192.0.2.7").packed, 1)
    out = feed(lambda: RequestStream(HttpRules(XFF), client, CLIENT, trusted=False), [get()]).out
    assert b"X-Forwarded-For: 192.0.2.7\r\n" in out
    assert b"X-Forwarded-Port: 54321\r\n" in out


# ---- trusted clients -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "told", "real_ip"),
    [
        (b"", b"2001:db8:1::2", b"2001:db8:1::2"),
        (b"X-Forwarded-For:\r\n", b"2001:db8:1::2", b"2001:db8:1::2"),
        (b"X-Forwarded-For: 192.0.2.1\r\n", b"192.0.2.1, 2001:db8:1::2", b"192.0.2.1"),
        (
            b"X-Forwarded-For: a, b\r\nB: c\r\nx-forwarded-for:2001:db8::7 \r\n",
            b"a, b, 2001:db8::7, 2001:db8:1::2",
            b"2001:db8::7",
        ),
        (
            b"X-Forwarded-For: unknown, [::1]:80\r\n",
            b"unknown, [::1]:80, 2001:db8:1::2",
            b"2001:db8:1::2",
        ),
        (
            b"X-Forwarded-For: ::1\r\nX-Real-IP: 192.0.2.9\r\n",
            b"::1, 2001:db8:1::2",
            b"192.0.2.9",
        ),
        (b"X_Forwarded_For: 192.0.2.1\r\n", b"2001:db8:1::2", b"2001:db8:1::2"),
        (b"Forwarded: for=192.0.2.1\r\n", b"2001:db8:1::2", b"2001:db8:1::2"),
    ],
)
def test_the_list_of_a_proxy_is_kept(sent: bytes, told: bytes, real_ip: bytes) -> None:
    request = the_one(feed(maker(trusted=True, keep_underscores=True), [get(HOST + sent)]))
    assert request.all(b"x-forwarded-for") == [told]
    assert request.all(b"x-real-ip") == [real_ip]
    assert request.all(b"forwarded") == request.all(b"x_forwarded_for") == []


def test_what_else_a_proxy_tells_is_kept() -> None:
    sent = (
        b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\nX-Forwarded-Prefix: /a\r\n"
    )
    request = the_one(feed(maker(trusted=True), [get(HOST + sent)]))
    assert request.all(b"x-forwarded-proto") == [b"https"]
    assert request.all(b"x-forwarded-host") == [b"shop.example"]
    assert request.all(b"x-forwarded-prefix") == [b"/a"]
    assert request.all(b"x-forwarded-port") == [b"8080"]


@pytest.mark.parametrize(
    ("sent", "before"),
    [
        (b"", b""),
        (b"Forwarded: for=192.0.2.1\r\n", b"for=192.0.2.1, "),
        (
            b'Forwarded: for="[::1]:80";by=x, for=_a\r\nforwarded: FOR=b ; proto=https\r\n',
            b'for="[::1]:80";by=x, for=_a, FOR=b ; proto=https, ',
        ),
        (b'Forwarded: for="a\\", for=b"\r\n', b'for="a\\", for=b", '),
        (b"X-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\n", b""),
    ],
)
def test_the_forwarded_of_a_proxy_is_kept(sent: bytes, before: bytes) -> None:
    request = the_one(feed(maker(FORWARDED, trusted=True), [get(HOST + sent)]))
    own = b'for="[2001:db8:1::2]:54321";proto=http;host=example.com'
    assert request.all(b"forwarded") == [before + own]
    assert request.all(b"x-forwarded-for") == request.all(b"x-real-ip") == []


LIST = "malformed list of forwarded addresses"


@pytest.mark.parametrize(
    ("mode", "sent", "why"),
    [
        (XFF, b'X-Forwarded-For: "192.0.2.1', LIST),
        (XFF, b"X-Forwarded-For: <script>", LIST),
        (XFF, b"X-Forwarded-For: \xff", LIST),
        (XFF, b"X-Forwarded-For: a;b", LIST),
        (XFF, b"X-Forwarded-Proto: \xff", "malformed field of a forwarding proxy"),
        (XFF, b"X-Real-IP: \xc3\xa4", "malformed field of a forwarding proxy"),
        (XFF, b"X-Real-IP: ::1\r\nX-Real-IP: ::2", "more than one X-Real-IP"),
        (FORWARDED, b'Forwarded: for="192.0.2.1', LIST),
        (FORWARDED, b'Forwarded: for="a\\"', LIST),
        (FORWARDED, b'Forwarded: for="a"b', LIST),
        (FORWARDED, b"Forwarded: for", LIST),
        (FORWARDED, b"Forwarded: for=a b=c", LIST),
        (FORWARDED, b"Forwarded: for=\xff", LIST),
        (FORWARDED, b"Forwarded: for=[::1]", LIST),
    ],
)
def test_a_list_that_cannot_be_appended_to_is_refused(
    mode: ClientIP, sent: bytes, why: str
) -> None:
    outcome = feed(maker(mode, trusted=True), [with_field(sent)])
    assert outcome == Outcome(b"", (), HttpRefused(400, why), False)
    assert feed(maker(mode), [with_field(sent)]).refused is None  # nobody reads it there


@pytest.mark.parametrize("length", [10, 4000])
def test_a_hostile_list_takes_no_time(length: int) -> None:
    """Refused in a walk, however often it could be split."""
    for value in (b", " * length, b"a=b, ;" * length + b'"', b"\t ,;" * length + b"="):
        raw = with_field(b"Forwarded: " + value[: 3 * length] + b"!")
        assert feed(maker(FORWARDED, trusted=True), [raw]).refused is not None


@pytest.mark.parametrize(
    ("told", "passed"),
    [
        (b"[fe80::1%eth0]", b"[fe80::1]"),
        (b"[fe80::1%25eth0]:8080", b"[fe80::1]:8080"),
        (b"[2001:db8::1]:8080", b"[2001:db8::1]:8080"),
    ],
)
@pytest.mark.parametrize("mode", [XFF, FORWARDED])
def test_a_zone_does_not_leave_its_host(told: bytes, passed: bytes, mode: ClientIP) -> None:
    """RFC 6874, 4."""
    outcome = feed(maker(mode), [get(b"Host: " + told + b"\r\n")])
    assert the_one(outcome).all(b"host") == [passed]
    assert b"%" not in outcome.out


def secure_fields(mode: ClientIP, raw: bytes, *, trusted: bool = False) -> Request:
    """What the target gets where a proxy in front had TLS with the client."""
    stream = RequestStream(HttpRules(mode), CLIENT, DIALLED, trusted=trusted, secure=True)
    (piece,) = stream.receive(raw)
    return h11_requests(bytes(piece))[0]


def test_https_where_a_proxy_header_said_tls() -> None:
    assert secure_fields(XFF, get()).all(b"x-forwarded-proto") == [b"https"]
    (told,) = secure_fields(FORWARDED, get()).all(b"forwarded")
    assert told == b'for="[2001:db8:1::2]:54321";proto=https;host=example.com'
    raw = with_field(b"X-Forwarded-For: 192.0.2.1")
    assert secure_fields(XFF, raw, trusted=True).all(b"x-forwarded-proto") == [b"https"]
    raw = with_field(b"X-Forwarded-Proto: http")
    assert secure_fields(XFF, raw, trusted=True).all(b"x-forwarded-proto") == [b"http"]
