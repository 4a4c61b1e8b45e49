"""PROXY headers as clients send them: whole, in pieces, with data behind, and wrong in every way.

Section numbers are those of HAProxy's doc/proxy-protocol.txt.
"""

from __future__ import annotations

import ipaddress
import sys
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from proxyprotocol.result import ProxyResultIPv4, ProxyResultIPv6
from proxyprotocol.v1 import ProxyProtocolV1
from proxyprotocol.v2 import ProxyProtocolV2

from tests.unit.client_ip.strategies import PAIRS
from v6fwd.client_ip.proxy.crc32c import crc32c
from v6fwd.client_ip.proxy.read import MAX_HEADER, V1_MAX, Header, ProxyHeaderError, read_header
from v6fwd.client_ip.proxy.write import write_v1, write_v2
from v6fwd.model import Address

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
LOCAL, PROXY = 0x20, 0x21
UNSPEC, TCP4, UDP4, TCP6, UDP6, UNIX, UNIX_DGRAM = 0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32

BEHIND = [
    b"x",
    b"\r\n",
    b"\n",
    b"GET / HTTP/1.1\r\n\r\n",
    SIGNATURE,
    b"PROXY UNKNOWN\r\n",
    bytes(99),
]
"""What may follow a header at once: none of it belongs to it."""


def v2(command: int, family: int, body: bytes = b"", length: int | None = None) -> bytes:
    """A v2 header, its length true unless another one is claimed."""
    claimed = len(body) if length is None else length
    return SIGNATURE + bytes([command, family]) + claimed.to_bytes(2, "big") + body


def tlv(kind: int, value: bytes = b"", length: int | None = None) -> bytes:
    """A TLV, its length true unless another one is claimed."""
    claimed = len(value) if length is None else length
    return bytes([kind]) + claimed.to_bytes(2, "big") + value


def ip(text: str) -> bytes:
    """Network bytes of an address."""
    return ipaddress.ip_address(text).packed


def body(source: str, destination: str) -> bytes:
    """The address block of a v2 header, from port 54321 to port 80."""
    return ip(source) + ip(destination) + (54321).to_bytes(2, "big") + (80).to_bytes(2, "big")


def outcome(data: bytes) -> Header | str | None:
    """What the parser says: a header, the text of its refusal, or None for "more"."""
    try:
        return read_header(data)
    except ProxyHeaderError as error:
        return f"error: {error}"


def read_in_every_way(data: bytes) -> Header | str | None:
    """Feed `data` byte by byte, then whole, then with more behind it; all must agree.

    A verdict stands: no later byte may change it, and none is counted that was not needed.
    """
    verdict = None
    for size in range(len(data) + 1):
        now = outcome(data[:size])
        if isinstance(verdict, str):
            assert isinstance(now, str), f"{size} bytes: {now} after {verdict}"
        else:
            assert verdict is None or now == verdict, f"{size} bytes: {now} after {verdict}"
            if isinstance(now, Header) and verdict is None:
                assert now.length == size
        verdict = now
    if verdict is not None:
        for more in BEHIND:
            after = outcome(data + more)
            assert after == verdict or (isinstance(after, str) and isinstance(verdict, str))
    return verdict


class Good(NamedTuple):
    """A header that must be taken, and the addresses that it tells, as text."""

    data: bytes
    source: str | None = None
    destination: str | None = None


def check_good(sample: Good) -> None:
    """The sample is taken, to its last byte and no further."""
    header = read_in_every_way(sample.data)
    assert isinstance(header, Header), header
    assert header.length == len(sample.data)
    told = [None if one is None else str(one) for one in (header.source, header.destination)]
    assert told == [sample.source, sample.destination]


# ---- version 1 -------------------------------------------------------------------------------

FULL6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
LONGEST_UNKNOWN = f"PROXY UNKNOWN {FULL6} {FULL6} 65535 65535\r\n".encode()  # 2.1: 107 bytes

GOOD_V1 = {
    "tcp4": Good(
        b"PROXY TCP4 203.0.113.2 203.0.113.1 54321 80\r\n", "203.0.113.2:54321", "203.0.113.1:80"
    ),
    "tcp6": Good(
        b"PROXY TCP6 2001:db8:1::2 2001:db8:1::1 54321 80\r\n",
        "[2001:db8:1::2]:54321",
        "[2001:db8:1::1]:80",
    ),
    "gunicorn's pp_01": Good(
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        "192.168.0.1:56324",
        "192.168.0.11:443",
    ),
    "both ends alike": Good(
        b"PROXY TCP4 127.0.0.1 127.0.0.1 65533 65533\r\n", "127.0.0.1:65533", "127.0.0.1:65533"
    ),
    "smallest tcp4": Good(b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0:0", "0.0.0.0:0"),
    "largest tcp4": Good(
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        "255.255.255.255:65535",
        "255.255.255.255:65535",
    ),
    "smallest tcp6": Good(b"PROXY TCP6 :: :: 0 0\r\n", "[::]:0", "[::]:0"),
    "largest tcp6": Good(
        f"PROXY TCP6 {FULL6} {FULL6} 65535 65535\r\n".encode(),
        f"[{FULL6}]:65535",
        f"[{FULL6}]:65535",
    ),
    "upper case address": Good(b"PROXY TCP6 2001:DB8::A ::1 1 2\r\n", "[2001:db8::a]:1", "[::1]:2"),
    "not shortened": Good(
        b"PROXY TCP6 2001:0db8:0000:0000:0000:0000:0000:0002 ::1 1 2\r\n",
        "[2001:db8::2]:1",
        "[::1]:2",
    ),
    "v4-mapped": Good(
        b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 1 2\r\n", "192.0.2.7:1", "192.0.2.1:2"
    ),
    "v4-mapped in hexadecimal": Good(
        b"PROXY TCP6 ::ffff:c000:207 2001:db8::1 1 2\r\n", "192.0.2.7:1", "[2001:db8::1]:2"
    ),
    "unknown": Good(b"PROXY UNKNOWN\r\n"),
    "unknown and a space": Good(b"PROXY UNKNOWN \r\n"),
    "unknown with addresses": Good(b"PROXY UNKNOWN 127.0.0.1 127.0.0.1 65533 65533\r\n"),
    "unknown with anything": Good(b"PROXY UNKNOWN \xff\x00\t 99999 PROXY TCP4 \r!\r\n"),
    "longest unknown": Good(LONGEST_UNKNOWN),
}


@pytest.mark.parametrize("sample", GOOD_V1.values(), ids=GOOD_V1)
def test_v1_taken(sample: Good) -> None:
    check_good(sample)


def test_the_longest_line_has_107_bytes() -> None:
    """The table's row is what section 2.1 counts."""
    assert len(LONGEST_UNKNOWN) == 107


MALFORMED, NO_HEADER = "malformed PROXY v1 line", "no PROXY header"
BAD_4, BAD_6 = (f"bad {family} address in the PROXY v1 line" for family in ("TCP4", "TCP6"))


@pytest.mark.parametrize("start", [b"PROXY UNKNOWN ", b"PROXY TCP4 1.2.3.4 "])
def test_a_line_of_107_bytes_without_an_end_is_too_long(start: bytes) -> None:
    begun = start.ljust(V1_MAX - 1, b"1")
    assert len(begun) == 106
    assert read_header(begun) is None
    with pytest.raises(ProxyHeaderError, match="longer than 107 bytes"):
        read_header(begun + b"1")


TOO_LONG, NO_CRLF = "PROXY v1 line longer than 107 bytes", "PROXY v1 line does not end with CRLF"

BAD_V1 = [
    (b"GET / HTTP/1.1\r\n", NO_HEADER),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", NO_HEADER),  # a TLS ClientHello
    (b"SSH-2.0-OpenSSH_9.2\r\n", NO_HEADER),
    (b" PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", NO_HEADER),
    (b"\r\nPROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", NO_HEADER),
    (b"\xef\xbb\xbfPROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", NO_HEADER),
    (b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n", NO_HEADER),
    (b"Proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n", NO_HEADER),
    (b"POST / HTTP/1.1\r\n", NO_HEADER),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NO_HEADER),
    (b"PROXYTCP4 1.1.1.1 2.2.2.2 1 2\r\n", NO_HEADER),
    (b"PROXY\tTCP4 1.1.1.1 2.2.2.2 1 2\r\n", NO_HEADER),
    (b"PROXY\r\n", NO_HEADER),
    (b"PROXY \r\n", MALFORMED),
    (b"PROXY \n", NO_CRLF),
    (b"PROXY SOMETHING\r\n", MALFORMED),
    (b"PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n", MALFORMED),
    (b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n", MALFORMED),
    (b"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n", MALFORMED),
    (b"PROXY TCP 1.1.1.1 2.2.2.2 1 2\r\n", MALFORMED),
    (b"PROXY unknown\r\n", MALFORMED),
    (b"PROXY UNKNOWNS\r\n", MALFORMED),
    (b"PROXY UNKNOWN\t\r\n", MALFORMED),
    (b"PROXY  UNKNOWN\r\n", MALFORMED),
    # 2.1: one space, exactly, between any two.
    (b"PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n", MALFORMED),
    (b"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2  1 2\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1  2\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1\t2.2.2.2 1 2\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1\xa02.2.2.2 1 2\r\n", MALFORMED),  # what str.split() takes as blank
    (b"PROXY TCP4 1.1.1.1\x1c2.2.2.2 1 2\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2\r\n", MALFORMED),
    (b"PROXY TCP4 192.168.0.1 192.16...\r\n", MALFORMED),  # gunicorn's invalid pp_01
    (b"PROXY TCP4 192.168.0.1 192.168.0.11 65iii 100000\r\n", MALFORMED),  # and pp_02
    (b"PROXY TCP4\r\n", MALFORMED),
    (b"PROXY TCP4 \r\n", MALFORMED),
    # Ports: 2.1 wants decimal digits without leading zeros, 0 to 65535.
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n", "port above 65535 in the PROXY v1 line"),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 99999\r\n", "port above 65535 in the PROXY v1 line"),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 100000 2\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 +80 2\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 8_0 2\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 080 2\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 00 2\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 0x50 2\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 80. 2\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1e3 2\r\n", MALFORMED),
    ("PROXY TCP4 1.1.1.1 2.2.2.2 \uff18\uff10 2\r\n".encode(), MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 \xb2 2\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 080\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 00\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 +80\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 8_0\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n", "port above 65535 in the PROXY v1 line"),
    # Addresses: of the family named, in no form but the usual one.
    (b"PROXY TCP6 127.0.0.1 127.0.0.1 1 2\r\n", BAD_6),
    (b"PROXY TCP4 ::1 ::1 1 2\r\n", BAD_4),
    (b"PROXY TCP4 ::ffff:1.1.1.1 2.2.2.2 1 2\r\n", BAD_4),
    (b"PROXY TCP6 ::1 2.2.2.2 1 2\r\n", BAD_6),
    (b"PROXY TCP4 1.1.1.1 ::1 1 2\r\n", BAD_4),
    (b"PROXY TCP4 1.1.1.01 2.2.2.2 1 2\r\n", BAD_4),
    (b"PROXY TCP4 001.1.1.1 2.2.2.2 1 2\r\n", BAD_4),
    (b"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n", BAD_4),
    (b"PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n", BAD_4),
    (b"PROXY TCP4 1.1.1.1. 2.2.2.2 1 2\r\n", BAD_4),
    (b"PROXY TCP4 1.1.1.1.1 2.2.2.2 1 2\r\n", BAD_4),
    (b"PROXY TCP4 16843009 2.2.2.2 1 2\r\n", BAD_4),
    (b"PROXY TCP4 0x1.1.1.1 2.2.2.2 1 2\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1/32 2.2.2.2 1 2\r\n", MALFORMED),
    (b"PROXY TCP4 localhost 2.2.2.2 1 2\r\n", MALFORMED),
    ("PROXY TCP4 \uff11.1.1.1 2.2.2.2 1 2\r\n".encode(), MALFORMED),
    (b"PROXY TCP6 [::1] ::1 1 2\r\n", MALFORMED),
    (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", MALFORMED),
    (b"PROXY TCP6 fe80::1%1 ::1 1 2\r\n", MALFORMED),
    (b"PROXY TCP6 ::1/128 ::1 1 2\r\n", MALFORMED),
    (b"PROXY TCP6 ::12345 ::1 1 2\r\n", BAD_6),
    (b"PROXY TCP6 1::2::3 ::1 1 2\r\n", BAD_6),
    (b"PROXY TCP6 ::: ::1 1 2\r\n", BAD_6),
    (b"PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n", BAD_6),
    (b"PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n", BAD_6),
    (b"PROXY TCP6 ::ffff:1.1.1.01 ::1 1 2\r\n", BAD_6),
    (b"PROXY TCP6 ::g ::1 1 2\r\n", MALFORMED),
    # 45 characters; 2.1 reckons with 39 for an address.
    (b"PROXY TCP6 0000:0000:0000:0000:0000:ffff:255.255.255.255 ::1 1 2\r\n", MALFORMED),
    # 2.1: the line ends with CRLF, and within 107 bytes.
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", NO_CRLF),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n\r", NO_CRLF),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n\r\n", NO_CRLF),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\x00\r\n", MALFORMED),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\x85\r\n", MALFORMED),
    (b"PROXY UNKNOWN\n", NO_CRLF),
    (b"PROXY UNKNOWN ignored\nGET / HTTP/1.1\r\n", NO_CRLF),
    (LONGEST_UNKNOWN[:-2] + b" \r\n", TOO_LONG),
    (b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n", TOO_LONG),
    (b"PROXY TCP6 " + b"0" * 97, TOO_LONG),
    (f"PROXY TCP6 {FULL6} {FULL6} 65535 65535   \r\n".encode(), MALFORMED),
]


@pytest.mark.parametrize(("data", "why"), BAD_V1, ids=[ascii(row[0])[2:60] for row in BAD_V1])
def test_v1_refused(data: bytes, why: str) -> None:
    assert isinstance(read_in_every_way(data), str)
    assert outcome(data) == f"error: {why}"


@pytest.mark.parametrize("sample", GOOD_V1.values(), ids=GOOD_V1)
def test_v1_lines_with_a_bare_lf(sample: Good) -> None:
    assert isinstance(read_in_every_way(sample.data[:-2] + b"\n"), str)


@pytest.mark.parametrize("size", range(6))
def test_every_letter_of_proxy_counts(size: int) -> None:
    data = bytearray(b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n")
    data[size] ^= 0x01
    assert read_in_every_way(bytes(data)) == f"error: {NO_HEADER}"


# ---- version 2 -------------------------------------------------------------------------------

BODY4 = body("203.0.113.2", "203.0.113.1")
BODY6 = body("2001:db8:1::2", "2001:db8:1::1")
MAPPED = body("::ffff:203.0.113.2", "::ffff:203.0.113.1")
HALF_MAPPED = body("::ffff:203.0.113.2", "2001:db8:1::1")
UNIX_BODY = b"/run/client.sock".ljust(108, b"\0") + b"/run/host.sock".ljust(108, b"\0")
TOLD4 = ("203.0.113.2:54321", "203.0.113.1:80")
TOLD6 = ("[2001:db8:1::2]:54321", "[2001:db8:1::1]:80")
EVERY_TLV = b"".join(tlv(kind, bytes(kind % 5)) for kind in range(256) if kind != 0x03)


def with_crc(data: bytes, at: int) -> bytes:
    """Fill in the CRC32C value that starts at `at` (2.2.3.3: computed with four zeros there)."""
    blank = data[:at] + bytes(4) + data[at + 4 :]
    return data[:at] + crc32c(blank).to_bytes(4, "big") + data[at + 4 :]


CRC = tlv(0x03, bytes(4))

GOOD_V2 = {
    "tcp4": Good(v2(PROXY, TCP4, BODY4), *TOLD4),
    "tcp6": Good(v2(PROXY, TCP6, BODY6), *TOLD6),
    "v4-mapped": Good(v2(PROXY, TCP6, MAPPED), *TOLD4),
    "one end v4-mapped": Good(v2(PROXY, TCP6, HALF_MAPPED), TOLD4[0], TOLD6[1]),
    "zeros": Good(v2(PROXY, TCP4, bytes(12)), "0.0.0.0:0", "0.0.0.0:0"),
    "ones": Good(v2(PROXY, TCP6, b"\xff" * 36), f"[{FULL6}]:65535", f"[{FULL6}]:65535"),
    "unspec": Good(v2(PROXY, UNSPEC)),
    "unspec with tlvs": Good(v2(PROXY, UNSPEC, tlv(0x05, b"id"))),
    "unix": Good(v2(PROXY, UNIX, UNIX_BODY)),
    "unix with tlvs": Good(v2(PROXY, UNIX, UNIX_BODY + tlv(0x02, b"host"))),
    "local": Good(v2(LOCAL, UNSPEC)),
    "local with addresses": Good(v2(LOCAL, TCP4, BODY4)),  # 2.2: discarded, family included
    "local tcp6 without addresses": Good(v2(LOCAL, TCP6)),
    "local of no family there is": Good(v2(LOCAL, 0xFF, b"anything")),
    "local with tlvs": Good(v2(LOCAL, UNSPEC, tlv(0x01, b"h2"))),
    "local with no tlvs but bytes": Good(v2(LOCAL, UNSPEC, b"\x01\xff\xff")),
    "local with a wrong crc": Good(v2(LOCAL, UNSPEC, tlv(0x03, b"nope"))),
    "alpn": Good(v2(PROXY, TCP4, BODY4 + tlv(0x01, b"h2")), *TOLD4),
    "authority": Good(v2(PROXY, TCP6, BODY6 + tlv(0x02, b"example.net")), *TOLD6),
    "empty tlv": Good(v2(PROXY, TCP4, BODY4 + tlv(0x04)), *TOLD4),
    "padding of zeros": Good(v2(PROXY, TCP4, BODY4 + bytes(72)), *TOLD4),  # 24 TLVs of type 0
    "ssl": Good(
        v2(PROXY, TCP4, BODY4 + tlv(0x20, bytes.fromhex("0100000000") + tlv(0x21, b"TLSv1.3"))),
        *TOLD4,
    ),
    "aws vpc endpoint": Good(v2(PROXY, TCP4, BODY4 + tlv(0xEA, b"\x01vpce-08d2bf15")), *TOLD4),
    "azure link id": Good(v2(PROXY, TCP4, BODY4 + tlv(0xEE, b"\x01\xc1\x45\0\x21")), *TOLD4),
    "every tlv": Good(v2(PROXY, TCP6, BODY6 + EVERY_TLV), *TOLD6),
    "a tlv that looks like a header": Good(
        v2(PROXY, TCP4, BODY4 + tlv(0xE0, v2(PROXY, TCP6, BODY6))), *TOLD4
    ),
    "crc": Good(v2(PROXY, TCP6, BODY6 + tlv(0x03, bytes.fromhex("a31eaa5c"))), *TOLD6),
    "crc first": Good(with_crc(v2(PROXY, TCP4, BODY4 + CRC + tlv(0x05, b"id")), 31), *TOLD4),
    "crc last": Good(with_crc(v2(PROXY, TCP4, BODY4 + tlv(0x05, b"id") + CRC), 36), *TOLD4),
    "crc of unspec": Good(with_crc(v2(PROXY, UNSPEC, CRC), 19)),
    "crc of unix": Good(with_crc(v2(PROXY, UNIX, UNIX_BODY + CRC), 235)),
}


@pytest.mark.parametrize("sample", GOOD_V2.values(), ids=GOOD_V2)
def test_v2_taken(sample: Good) -> None:
    check_good(sample)


@pytest.mark.parametrize("command", [LOCAL, PROXY], ids=["local", "proxy"])
def test_the_longest_header(command: int) -> None:
    """Its prefixes are too many to feed all of them."""
    data = v2(command, TCP4, BODY4 + tlv(0xE0, bytes(MAX_HEADER - 16 - 12 - 3)))
    assert len(data) == MAX_HEADER == 4096
    for size in (*range(40), 1000, len(data) - 1):
        assert read_header(data[:size]) is None
    header = read_header(data + b"x")
    assert header is not None
    assert header.length == len(data)
    assert (str(header.source) == TOLD4[0]) is (command == PROXY)


@pytest.mark.parametrize("command", [LOCAL, PROXY], ids=["local", "proxy"])
@pytest.mark.parametrize("length", [MAX_HEADER + 1, 16 + 0xFFFF])
def test_a_longer_header_is_refused_by_its_length(command: int, length: int) -> None:
    start = v2(command, TCP4, length=length - 16)
    assert outcome(start) == f"error: PROXY v2 header of {length} bytes, the limit is 4096"


WORST = {
    "empty TLVs": tlv(0x04) * 1345,
    "empty TLVs of SSL": tlv(0x20) * 1345,
    "TLVs of one byte": tlv(0x04, b"x") * 1008,
    "TLVs of nine bytes": tlv(0x04, bytes(9)) * 336,
    "long and short ones by turns": (tlv(0x04) + tlv(0x04, bytes(9))) * 268,
    "a checksum": tlv(0x04, bytes(4030)),
}


@pytest.mark.parametrize("tlvs", WORST.values(), ids=WORST)
def test_no_header_takes_many_steps(tlvs: bytes) -> None:
    """Counted in lines: a header is read in one go, while others wait."""
    data = with_crc(v2(PROXY, TCP4, BODY4 + CRC + tlvs), 31)
    assert len(data) <= MAX_HEADER
    read_header(data)  # what is made once
    lines = 0

    def count(_: object, event: str, __: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        read_header(data)
    finally:
        sys.settrace(before)
    assert 20 < lines < 5000


SHORT = "PROXY v2 header too short for its addresses"
RUNS_PAST = "PROXY v2 TLV runs past the header"
BAD_CRC, BAD_CRC_SIZE = "PROXY v2 CRC32C is wrong", "PROXY v2 CRC32C is not 4 bytes long"

BAD_V2 = {
    "tcp4, no addresses": (v2(PROXY, TCP4), SHORT),
    "tcp4, one byte short": (v2(PROXY, TCP4, BODY4, 11), SHORT),
    "tcp6, no addresses": (v2(PROXY, TCP6), SHORT),
    "tcp6, addresses of tcp4": (v2(PROXY, TCP6, BODY4), SHORT),
    "tcp6, one byte short": (v2(PROXY, TCP6, BODY6, 35), SHORT),
    "tcp4, no length but addresses": (v2(PROXY, TCP4, BODY6, 0), SHORT),
    "unix, one byte short": (v2(PROXY, UNIX, UNIX_BODY, 215), SHORT),
    "one byte for a tlv": (v2(PROXY, TCP4, BODY4 + b"\x04"), RUNS_PAST),
    "two bytes for a tlv": (v2(PROXY, TCP4, BODY4 + b"\x04\x00"), RUNS_PAST),
    "tlv past the end": (v2(PROXY, TCP4, BODY4 + tlv(0x04, b"", 1)), RUNS_PAST),
    "tlv far past the end": (v2(PROXY, TCP4, BODY4 + tlv(0x04, b"xx", 0xFFFF)), RUNS_PAST),
    "a byte behind a tlv": (v2(PROXY, TCP6, BODY6 + tlv(0x01, b"h2") + b"\0"), RUNS_PAST),
    "a byte behind unspec": (v2(PROXY, UNSPEC, b"\x01"), RUNS_PAST),
    "two bytes behind unix": (v2(PROXY, UNIX, UNIX_BODY + b"\x01\x00"), RUNS_PAST),
    "crc wrong": (v2(PROXY, TCP4, BODY4 + tlv(0x03, b"\xde\xad\xbe\xef")), BAD_CRC),
    "crc of zeros": (v2(PROXY, TCP4, BODY4 + CRC), BAD_CRC),
    "crc little-endian": (
        v2(PROXY, TCP6, BODY6 + tlv(0x03, bytes.fromhex("a31eaa5c")[::-1])),
        BAD_CRC,
    ),
    "crc of three bytes": (v2(PROXY, TCP4, BODY4 + tlv(0x03, bytes(3))), BAD_CRC_SIZE),
    "crc of five bytes": (v2(PROXY, TCP4, BODY4 + tlv(0x03, bytes(5))), BAD_CRC_SIZE),
    "crc of no bytes": (v2(PROXY, UNSPEC, tlv(0x03)), BAD_CRC_SIZE),
    "crc of unix wrong": (v2(PROXY, UNIX, UNIX_BODY + CRC), BAD_CRC),
}


@pytest.mark.parametrize(("data", "why"), BAD_V2.values(), ids=BAD_V2)
def test_v2_refused(data: bytes, why: str) -> None:
    assert isinstance(read_in_every_way(data), str)
    assert outcome(data) == f"error: {why}"


@pytest.mark.parametrize("at", range(16 + 36))
def test_a_crc_covers_every_byte(at: int) -> None:
    data = bytearray(GOOD_V2["crc"].data)
    data[at] ^= 0x80
    assert not isinstance(outcome(bytes(data)), Header)


@pytest.mark.parametrize("at", range(12))
def test_every_byte_of_the_signature_counts(at: int) -> None:
    data = bytearray(GOOD_V2["tcp6"].data)
    data[at] ^= 0x20
    assert read_in_every_way(bytes(data)) == f"error: {NO_HEADER}"


@pytest.mark.parametrize("start", range(1, 12))
def test_half_a_signature_is_none(start: int) -> None:
    assert isinstance(read_in_every_way(SIGNATURE[start:] + GOOD_V2["tcp6"].data[12:]), str)


def test_versions_and_commands() -> None:
    """2.2: version 2, LOCAL or PROXY; all other values of the byte are refused at once."""
    for byte in range(256):
        verdict = outcome(SIGNATURE + bytes([byte]))
        if byte in (LOCAL, PROXY):
            assert verdict is None
        else:
            assert verdict == f"error: PROXY v2 version and command 0x{byte:02x} are unknown"


TAKEN_FAMILIES = {UNSPEC, TCP4, TCP6, UNIX}
"""Under PROXY: all that a TCP connection can be; 2.2.2 and 2.2.3 name no others for streams."""


def test_families_under_proxy() -> None:
    for byte in range(256):
        data = SIGNATURE + bytes([PROXY, byte])
        if byte in TAKEN_FAMILIES:
            assert outcome(data) is None
        elif byte in (UDP4, UDP6, UNIX_DGRAM):
            why = f"PROXY v2 family 0x{byte:02x} is for datagrams, this is TCP"
            assert outcome(data) == f"error: {why}"
        else:
            assert outcome(data) == f"error: PROXY v2 family 0x{byte:02x} is unknown"
        whole = outcome(v2(PROXY, byte, bytes(216)))
        assert isinstance(whole, Header) is (byte in TAKEN_FAMILIES)


def test_families_under_local() -> None:
    """2.2: a receiver discards the family of a LOCAL header, so that none is wrong."""
    for byte in range(256):
        assert read_header(v2(LOCAL, byte)) == Header(16)
        assert read_header(v2(LOCAL, byte, b"\xff" * 5) + b"x") == Header(21)


def test_nothing_is_not_an_error() -> None:
    assert read_header(b"") is None


# ---- anything at all -------------------------------------------------------------------------

_V1_WORDS = st.sampled_from(
    [
        *(b"PROXY", b"TCP4", b"TCP6", b"UNKNOWN", b"1.1.1.1", b"::1", b"::ffff:1.1.1.1"),
        *(b"80", b"0", b"65536", b"+", b" ", b"  ", b"\r\n", b"\n", b"\r", b"\t", b"\x00"),
        *(b"\xff", b"GET / "),
    ]
)
_V1_LIKE = st.lists(_V1_WORDS, max_size=14).map(b"".join)
_V1_UNKNOWN = st.binary(max_size=110).map(b"PROXY UNKNOWN ".__add__)
_TLV_LIKE = st.one_of(
    st.binary(max_size=12),
    st.builds(tlv, st.sampled_from([0, 1, 3, 4, 0xE0]), st.binary(max_size=9)),
)
_V2_LIKE = st.builds(
    v2,
    st.sampled_from([LOCAL, PROXY, PROXY, 0x22, 0x11]),
    st.sampled_from([UNSPEC, TCP4, TCP6, UNIX, UDP4, 0x01, 0xFF]),
    st.builds(
        bytes.__add__,
        st.sampled_from([b"", BODY4, BODY6, UNIX_BODY]),
        st.lists(_TLV_LIKE, max_size=3).map(b"".join),
    ),
    st.one_of(st.none(), st.none(), st.integers(0, 300)),
)
_KNOWN = st.sampled_from([sample.data for sample in (*GOOD_V1.values(), *GOOD_V2.values())])
_START = st.one_of(_V1_LIKE, _V1_UNKNOWN, _V2_LIKE, _KNOWN)


@st.composite
def changed_headers(draw: st.DrawFn) -> bytes:
    """A header with some bytes changed, then cut or followed by others."""
    data = bytearray(draw(_START))
    for _ in range(draw(st.integers(0, 2))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, 400))]) + draw(st.binary(max_size=8))


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.binary(max_size=300), changed_headers()))
@example(b"PROXY UNKNOWN \n\r\n")
def test_any_bytes_have_one_verdict(data: bytes) -> None:
    """A header, a refusal or "more", the same however the bytes are cut; nothing else."""
    verdict = read_in_every_way(data)
    if isinstance(verdict, Header):
        assert 15 <= verdict.length <= len(data)  # 15: PROXY UNKNOWN CRLF
        assert (verdict.source is None) is (verdict.destination is None)


def told_by_the_library(data: bytes) -> tuple[Address, Address] | None:
    """What the proxy-protocol library reads from a whole header."""
    library = ProxyProtocolV1() if data.startswith(b"P") else ProxyProtocolV2()
    result = library.unpack(data)
    if not isinstance(result, ProxyResultIPv4 | ProxyResultIPv6):
        return None
    (source, source_port), (destination, destination_port) = result.source, result.dest
    return Address.of(source.packed, source_port), Address.of(destination.packed, destination_port)


_TLVS = st.lists(
    st.builds(tlv, st.integers(4, 255), st.binary(max_size=9)), max_size=3, unique_by=lambda t: t[0]
).map(b"".join)


@settings(max_examples=200, deadline=None)
@given(PAIRS, _TLVS)
def test_the_library_reads_alike(pair: tuple[Address, Address], tlvs: bytes) -> None:
    source, destination = pair
    ports = source.port.to_bytes(2, "big") + destination.port.to_bytes(2, "big")
    family = TCP4 if len(source.packed) == 4 else TCP6
    data = v2(PROXY, family, source.packed + destination.packed + ports + tlvs)
    assert read_header(data) == Header(len(data), *pair, tlvs)
    assert told_by_the_library(data) == pair


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([GOOD_V1["tcp4"], GOOD_V1["tcp6"], GOOD_V2["tcp4"]]), st.data())
def test_what_is_taken_the_library_takes(sample: Good, draw: st.DataObject) -> None:
    """One way only: the library takes much that the specification forbids (int(), no limit)."""
    data = bytearray(sample.data)
    data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.sampled_from(b"0123456789.: +-_"))
    verdict = outcome(bytes(data))
    if isinstance(verdict, Header) and verdict.source is not None:
        told = told_by_the_library(bytes(data[: verdict.length]))
        assert told == (verdict.source, verdict.destination)


@settings(max_examples=200, deadline=None)
@given(PAIRS, st.binary(max_size=40))
def test_what_we_write_is_read(pair: tuple[Address, Address], rest: bytes) -> None:
    for data in (write_v1(*pair), write_v2(*pair)):
        assert read_in_every_way(data) == Header(len(data), *pair)
        assert read_header(data + rest) == Header(len(data), *pair)
