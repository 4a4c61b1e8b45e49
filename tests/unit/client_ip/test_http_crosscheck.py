"""The second reading: llhttp has no leniency, and what it reads in another way is refused."""

from __future__ import annotations

import httptools
import pytest

from tests.support.http_reading import feed, maker
from tests.unit.client_ip.http_samples import HOST, chunked, get, with_field
from v6fwd.client_ip.http import crosscheck
from v6fwd.client_ip.http.crosscheck import compare as check
from v6fwd.client_ip.http.fields import Fields, Pairs
from v6fwd.client_ip.http.syntax import HttpRefused, Refusal

BLOCK = b"\r\nHost: a\r\n\r\n"
LINE = (b"GET", b"/", b"1")
PAIRS = [(b"Host", b"a")]
FIELDS = Fields(b"", 0, b"a", False, False, False)


class _Ignore:
    """Takes what a parser tells."""

    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_body(self, body: bytes) -> None: ...


@pytest.mark.parametrize(
    "raw",
    [
        get().replace(b"\r\n", b"\n"),
        get(HOST + b"A: b\nC: d\r\n"),
        get(HOST + b"A: b\rC: d\r\n"),
        get()[:-2] + b"\n",
        get(b"A : b\r\n"),
        get(b"A: b\r\n c\r\n"),
        with_field(b"A: b\0"),
        with_field(b"A: b\x01"),
        with_field(b"A b: c"),
        with_field(b"Content-Length: 5\r\nContent-Length: 5"),
        with_field(b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
        with_field(b"Transfer-Encoding: chunked\r\nContent-Length: 5"),
        with_field(b"Content-Length: +5"),
        with_field(b"Content-Length: 99999999999999999999"),
        with_field(b"Transfer-Encoding: gzip"),
        with_field(b"Transfer-Encoding: chunked, gzip"),
        get(line=b"GET / HTTP/1.2"),
        get(line=b"GET / HTTP/11.1"),
        get(line=b"GET  HTTP/1.1"),
        get(line=b"GET / HTTP/1.1 "),
        get(line=b"GET /\xc3\xa4 HTTP/1.1"),
        chunked(b"5 \r\nhello\r\n0\r\n\r\n"),
        chunked(b"5\nhello\r\n0\r\n\r\n"),
        chunked(b"5\r\nhello0\r\n\r\n"),
        with_field(b"Connection: close") + get(),
    ],
)
def test_llhttp_is_strict(raw: bytes) -> None:
    """A release of httptools with a leniency switched on would be no second opinion."""
    parser = httptools.HttpRequestParser(_Ignore())
    with pytest.raises(httptools.HttpParserError):
        parser.feed_data(raw)


def test_what_is_read_alike_passes() -> None:
    check(LINE, BLOCK, FIELDS, PAIRS)


def test_methods_that_llhttp_does_not_know_pass() -> None:
    check((b"BREW", b"/", b"1"), BLOCK, FIELDS, PAIRS)


@pytest.mark.parametrize(
    ("line", "fields", "pairs"),
    [
        (LINE, FIELDS, [(b"Host", b"b")]),
        (LINE, FIELDS, [(b"host", b"a")]),
        (LINE, FIELDS, []),
        (LINE, FIELDS, PAIRS * 2),
        (LINE, FIELDS._replace(length=1), PAIRS),
        (LINE, FIELDS._replace(length=-1), PAIRS),
        (LINE, FIELDS._replace(closing=True), PAIRS),
        (LINE, FIELDS._replace(asked_upgrade=True), PAIRS),
        ((b"GET", b"/", b"0"), FIELDS, PAIRS),
        ((b"CONNECT", b"a", b"1"), FIELDS._replace(closing=True), PAIRS),
    ],
)
def test_what_is_read_in_two_ways_is_refused(
    line: tuple[bytes, bytes, bytes], fields: Fields, pairs: Pairs
) -> None:
    with pytest.raises(Refusal) as caught:
        check(line, BLOCK, fields, pairs)
    assert caught.value.verdict == HttpRefused(400, "head read in two ways")


@pytest.mark.parametrize(
    ("line", "block"),
    [
        (LINE, b"\r\nHost: a\n\r\n"),
        (LINE, b"\r\nHost : a\r\n\r\n"),
        ((b"GET", b"/\xff", b"1"), BLOCK),
        ((b"GET", b"/", b"7"), BLOCK),
    ],
)
def test_what_llhttp_refuses_is_refused(line: tuple[bytes, bytes, bytes], block: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        check(line, block, FIELDS, PAIRS)
    assert caught.value.verdict == HttpRefused(400, "head refused by the second reading")


@pytest.mark.parametrize("block", [b"\r\nHost: a\r\n", b"", b"\r\nHost: a\r\n\r"])
def test_a_head_that_does_not_end_is_refused(block: bytes) -> None:
    with pytest.raises(Refusal):
        check(LINE, block, FIELDS, PAIRS)


def test_what_is_remembered_is_bounded() -> None:
    """Clients choose the names of fields."""
    largest = 0
    for number in range(crosscheck._MOST_AGREED + 10):
        outcome = feed(maker(), [get(HOST + b"A.%d: b\r\n" % number)])
        assert outcome.refused is None
        largest = max(largest, len(crosscheck._agreed))
    assert largest == crosscheck._MOST_AGREED
