"""For tests of the quick reading of usual heads: the two parsers must give the same for each."""

from __future__ import annotations

import random
import re

from tests.support.http_reading import CLIENT, DIALLED
from v6fwd.client_ip.http import crosscheck
from v6fwd.client_ip.http.address import AddressFields
from v6fwd.client_ip.http.fields import FieldReader, Reading, pairs_of
from v6fwd.client_ip.http.request_line import LINE_RE, check_line
from v6fwd.client_ip.http.syntax import Refusal
from v6fwd.client_ip.http.usual import UsualReader

_ADDRESSES = [
    AddressFields(CLIENT, DIALLED, forwarded=forwarded, trusted=trusted)
    for forwarded in (False, True)
    for trusted in (False, True)
]
_USUAL = [UsualReader(address) for address in _ADDRESSES]  # that keep the last head's values
_READERS = [
    FieldReader(address, keep_underscores=keep) for address in _ADDRESSES for keep in (False, True)
]

Verdicts = dict[object, bool]
"""Whether llhttp agreed about heads of a shape."""


def assert_read_alike(head: bytes, verdicts: Verdicts) -> bool:
    """Compare the readings of bytes that may be a head; return whether it was usual.

    Where our own parser accepts a head, llhttp must say the same of all heads of its shape.
    """
    line, found, rest = head.partition(b"\r\n")
    match = LINE_RE.fullmatch(line)
    readings: list[Reading | None] = []
    if found and match is not None and rest.find(b"\r\n\r\n") == len(rest) - 4:
        readings = [_read(reader, rest, match[3]) for reader in _READERS]
        if readings[0] is not None and _may_pass(match):
            verdict = _agrees(match, b"\r\n" + rest, readings[0])
            assert verdicts.setdefault(readings[0].shape, verdict) == verdict
    was_usual = False
    for number, usual in enumerate(_USUAL):
        read = usual.head(head)
        block = usual.block(b"\r\n" + rest)
        if read is None:
            continue
        was_usual = True
        assert match is not None
        assert (match[3], match[2][:1], match[1] == b"CONNECT") == (b"1", b"/", False)
        for reading in readings[2 * number : 2 * number + 2]:
            assert reading is not None
            assert block == reading.fields
            assert read == (line, b"\r\n" + rest, reading.fields.rewritten, *_head_method(match[1]))
            assert _agrees(match, b"\r\n" + rest, reading)
    return was_usual


def _may_pass(line: re.Match[bytes]) -> bool:
    """Whether a line passes that is not CONNECT, which llhttp is always asked about."""
    try:
        check_line(line, line[0], pass_opaque=False)
    except Refusal:
        return False
    return True


def _head_method(method: bytes) -> tuple[bytes]:
    return (b"HEAD" if method == b"HEAD" else b"",)


def _read(reader: FieldReader, block: bytes, minor: bytes) -> Reading | None:
    try:
        return reader.read(block, minor)
    except Refusal:
        return None


def _agrees(line: re.Match[bytes], block: bytes, reading: Reading) -> bool:
    try:
        crosscheck.compare(
            (line[1], line[2], line[3]), block, reading.fields, pairs_of(reading.lines)
        )
    except Refusal:
        return False
    return True


_LINES = b"GET / HTTP/1.1|GET /a?b=c%20d HTTP/1.1|HEAD /x HTTP/1.1|POST / HTTP/1.1|BREW / HTTP/1.1"
_LINES += b"|GET / HTTP/1.0|OPTIONS * HTTP/1.1|GET http://a/ HTTP/1.1|CONNECT a:1 HTTP/1.1|head /"
_NAMES = b"""Accept Accept-Language Cookie Referer User-Agent Upgrade-Insecure-Requests A a-b-1 Hos
 Content-Type X-Requested-With Te-St Sec-Fetch-Site DNT If-None-Match 1 - Cache-Control Priority
 Content-Length Transfer-Encoding Connection Upgrade Expect TE Keep-Alive Proxy-Connection Trailer
 HTTP2-Settings X-Forwarded-For Forwarded X-Real-IP Hostname Upgrades A_B A.B Content_Length A! """
_VALUES = b"""a|0|5|*/*|text/html,*/*;q=0.8|keep-alive|Keep-Alive|close|upgrade|websocket|chunked
|a b|trailers|TE|\x80\xff|~| a|"|\\|:|a:b|http://a/?b|100-continue|,|keep-alive, TE"""
_HOSTS = b"a|example.com|example.com:8080|[::1]:80|[fe80::1%eth0]|192.0.2.1|a:99999|a,b|[::x]|a_b|A"
_ODD = [b" ", b"\t", b"\n", b"\r", b"\r\n", b"\0", b"\x7f", b":", b"\x0b", b"\x80", b"_", b"\r\n "]


def some_head(chance: random.Random) -> bytes:
    """A head: most of its parts are as browsers send them, and in every third a byte is not."""
    rare = chance.random() < 0.3
    names = _NAMES.split()[: None if rare else 18]
    values = _VALUES.replace(b"\n", b"").split(b"|")
    hosts = _HOSTS.split(b"|")[: None if rare else 6]
    fields = [
        _cased(chance.choice(names), chance) + chance.choice([b": ", b":"]) + chance.choice(values)
        for _ in range(chance.choice([0, 1, 2, 3, 5, 8]))
    ]
    fields.insert(chance.randint(0, len(fields)), b"Host: " + chance.choice(hosts))
    if chance.random() < 0.5:
        fields.insert(chance.randint(0, len(fields)), b"Connection: keep-alive")
    line = chance.choice(_LINES.split(b"|")[: None if rare else 5])
    head = b"\r\n".join([line, *fields, b"", b""])
    if chance.random() < 0.3:
        at = chance.randint(0, len(head))
        head = head[:at] + chance.choice(_ODD) + head[at + chance.randint(0, 2) :]
    return head


def _cased(name: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.9:
        return name
    return bytes(chance.choice(pair) for pair in zip(name.lower(), name.upper(), strict=True))
