"""A usual head is read in one match, and just as the two parsers read it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.http_reading import CLIENT, DIALLED, maker
from tests.support.usual_heads import Verdicts, assert_read_alike, some_head
from tests.unit.client_ip.http_samples import BAD_HEADS, GOOD, HOST, get, with_field
from v6fwd.client_ip.http import crosscheck, fields, memo, usual
from v6fwd.client_ip.http.address import AddressFields
from v6fwd.client_ip.http.fields import FieldReader
from v6fwd.client_ip.http.memo import FieldMemo
from v6fwd.client_ip.http.syntax import MAX_FIELDS
from v6fwd.client_ip.http.usual import UsualReader

HEADS = 10_000
"""Of a million, none was read in two ways."""


@pytest.fixture
def address() -> AddressFields:
    return AddressFields(CLIENT, DIALLED, forwarded=False, trusted=False)


@pytest.fixture
def reader(address: AddressFields) -> UsualReader:
    return UsualReader(address)


def test_the_two_parsers_read_the_same() -> None:
    chance = random.Random(18)
    verdicts: Verdicts = {}
    usual_heads = sum(assert_read_alike(some_head(chance), verdicts) for _ in range(HEADS))
    assert HEADS // 4 < usual_heads < HEADS * 3 // 4
    assert set(verdicts.values()) == {True, False}


def test_samples_are_read_alike() -> None:
    verdicts: Verdicts = {}
    for raw in (*(raw for raw, _ in GOOD.values()), *(raw for raw, *_ in BAD_HEADS.values())):
        assert_read_alike(raw, verdicts)


def many(count: int) -> bytes:
    return get(HOST + b"A: b\r\n" * (count - 1))


USUAL = {
    "one field": get(),
    "any method": get(line=b"BREW / HTTP/1.1"),
    "any name": with_field(b"Some-Name-1: \x80 \xff"),
    "no blank behind the colon, no value": get(b"A:b\r\nB:\r\n" + HOST),
    "kept alive": with_field(b"Connection: keep-alive"),
    "kept alive, before Host": get(b"A: b\r\nConnection: Keep-Alive\r\nC: d\r\n" + HOST),
    "begins like a special one": with_field(b"Upgrade-Insecure-Requests: 1\r\nTest: 1\r\nX-F: 1"),
    "the most fields": many(MAX_FIELDS),
}


@pytest.mark.parametrize("raw", USUAL.values(), ids=USUAL.keys())
def test_usual(reader: UsualReader, raw: bytes) -> None:
    assert reader.head(raw) is not None
    assert assert_read_alike(raw, {})


def special_names() -> Iterator[bytes]:
    """Names that fields.py knows, and those that begin with what it takes for an address."""
    for name in sorted(fields._GUARDED):
        yield from (name, name.upper(), name.title())
    for begins in fields._FORWARDING:
        yield from (begins, begins.title() + b"-X", begins.upper() + b"1")


@pytest.mark.parametrize("name", [*special_names()])
def test_no_name_is_usual_that_means_anything(reader: UsualReader, name: bytes) -> None:
    """Alone, and where the same name stood well before."""
    for value in (b"", b" a", b" 5", b" keep-alive, a"):
        assert reader.head(with_field(name + b":" + value)) is None
        assert reader.block(get(name + b":" + value + b"\r\n" + HOST, b"")) is None


ODD = {
    "no Host": get(b"A: b\r\n"),
    "two Hosts": with_field(b"Host: example.com"),
    "malformed Host": get(b"Host: a,b\r\n"),
    "malformed port": get(b"Host: a:99999\r\n"),
    "two Connections around Host": get(
        b"Connection: keep-alive\r\n" + HOST + b"Connection: keep-alive\r\n"
    ),
    "two Connections behind Host": get(HOST + b"Connection: keep-alive\r\n" * 2),
    "Connection to close": with_field(b"Connection: close"),
    "Connection that names a field": with_field(b"Connection: keep-alive, a"),
    "blank behind a value": with_field(b"A: b "),
    "tab": with_field(b"A: b\tc"),
    "blank before a colon": with_field(b"A : b"),
    "no colon": with_field(b"A"),
    "no name": with_field(b": b"),
    "folded": with_field(b"A: b\r\n c"),
    "underscore": with_field(b"A_B: c"),
    "dot": with_field(b"A.B: c"),
    "byte above 127 in a name": with_field(b"A\x80: c"),
    "NUL": with_field(b"A: \0"),
    "DEL": with_field(b"A: \x7f"),
    "bare CR": with_field(b"A: b\rc"),
    "bare LF": with_field(b"A: b\nc: d"),
    "HTTP/1.0": get(line=b"GET / HTTP/1.0"),
    "absolute form": get(line=b"GET http://example.com/ HTTP/1.1"),
    "CONNECT": get(line=b"CONNECT example.com:80 HTTP/1.1"),
    "method in lower case": get(line=b"head / HTTP/1.1"),
    "a byte more": get() + b"x",
    "a byte less": get()[:-1],
    "two": get() * 2,
    "empty line before": b"\r\n" + get(),
    "too many fields": many(MAX_FIELDS + 1),
}


@pytest.mark.parametrize("raw", ODD.values(), ids=ODD.keys())
def test_odd(reader: UsualReader, raw: bytes) -> None:
    assert reader.head(raw) is None
    assert not assert_read_alike(raw, {})


def test_llhttp_is_asked_about_host_and_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each pair."""
    asked: list[bytes] = []
    monkeypatch.setattr(crosscheck, "compare", lambda *args: asked.append(args[1]))
    address = AddressFields(CLIENT, DIALLED, forwarded=False, trusted=False)
    usual._frame.cache_clear()
    for host in (b"a", b"b", b"a", b"a"):
        assert UsualReader(address).head(get(b"Host: " + host + b"\r\n")) is not None
    assert UsualReader(address).head(get(b"Host: a\r\nConnection: keep-alive\r\n")) is not None
    usual._frame.cache_clear()  # nobody was really asked
    assert asked == [
        b"\r\nHost: a\r\n\r\n",
        b"\r\nHost: b\r\n\r\n",
        b"\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    ]


def test_memory_is_bounded() -> None:
    assert usual._frame.cache_info().maxsize == 1024
    longest = b"a" * 262
    assert usual._HEAD_RE.fullmatch(get(b"Host: " + longest + b"\r\n"))
    assert not usual._HEAD_RE.fullmatch(get(b"Host: " + longest + b"a\r\n"))


def test_behind_an_odd_block_some_are_not_looked_at(
    monkeypatch: pytest.MonkeyPatch, address: AddressFields
) -> None:
    """Clients that send odd heads alone hardly pay for the look; what comes out is the same."""
    looked: list[bytes] = []
    plain = UsualReader.block

    def block(self: UsualReader, raw: bytes) -> fields.Fields | None:
        looked.append(raw)
        return plain(self, raw)

    monkeypatch.setattr(UsualReader, "block", block)
    one = FieldMemo(FieldReader(address, keep_underscores=False))
    for number in range(2 * (memo._SKIPPED + 1)):
        odd = b"\r\nHost: a\r\nB: \r\nC: %d\r\n\r\n" % number
        one.read(odd, b"GET", b"/", b"1")
    assert len(looked) == 2


@pytest.mark.parametrize(("method", "minor"), [(b"CONNECT", b"1"), (b"GET", b"0")])
def test_whether_a_block_is_usual_depends_on_the_line(
    monkeypatch: pytest.MonkeyPatch, address: AddressFields, method: bytes, minor: bytes
) -> None:
    """llhttp reads CONNECT in its own way, and HTTP/1.0 is not kept alive."""
    asked: list[tuple[bytes, bytes, bytes]] = []
    monkeypatch.setattr(memo, "check", lambda line, *_: asked.append(line))
    one = FieldMemo(FieldReader(address, keep_underscores=False))
    target = b"a:80" if method == b"CONNECT" else b"/"
    read = one.read(b"\r\nHost: a:80\r\n\r\n", method, target, minor)
    assert asked == [(method, target, minor)]
    assert read.closing == (minor == b"0")


_FIELDS = (
    b"Host: a\r\nA: b",
    b"C: d\r\nHost: a",
    b"Host: b\r\nC: d",
    b"Host: a\r\nA: b ",
    b"E_F: g",
)
_HEADS = [
    begin + b"GET / HTTP/1.1\r\n" + fields + b"\r\nHost: a" * (b"Host" not in fields) + b"\r\n\r\n"
    for begin in (b"", b"\r\n")
    for fields in _FIELDS
]


@given(st.lists(st.tuples(st.sampled_from(_HEADS), st.booleans()), max_size=7))
@example([(_HEADS[0], False), (_HEADS[1], False), (_HEADS[5], False), (_HEADS[0], False)])
@example([(_HEADS[0], False), (_HEADS[1], False), (_HEADS[0], True), (_HEADS[0], False)])
@settings(max_examples=500)
def test_a_head_is_read_as_if_it_were_the_first(heads: list[tuple[bytes, bool]]) -> None:
    """Whatever was remembered of those before it, and whether it comes in parts."""
    stream = maker()()
    for head, in_parts in heads:
        alone = b"".join(map(bytes, maker()().receive(head)))
        parts = [head[:9], head[9:]] if in_parts else [head]
        assert b"".join(bytes(piece) for part in parts for piece in stream.receive(part)) == alone
        assert alone
