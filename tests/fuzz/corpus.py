"""Samples that a fuzzer starts from: what the tests know, and what fuzzing has found.

`corpus/TARGET` has one sample a line, written as a bytes literal of Python; what a fuzzer finds
is added there, so that it is tried again for ever.
"""

from __future__ import annotations

import ast
import random
import sys
from pathlib import Path

from tests.corpora.reading import gunicorn_samples, llhttp_samples
from tests.unit.client_ip.http_odd_answers import ALL_PASS, MENDED, ONE_REFUSES
from tests.unit.client_ip.http_samples import BAD_BODIES, BAD_HEADS, GOOD
from v6fwd.config.keys import TABLES

FOLDER = Path(__file__).parent / "corpus"

_HTTP_WORDS = (
    b"GET HEAD POST OPTIONS CONNECT HTTP/1.1 HTTP/1.0 HTTP/2.0 Host Content-Length Connection"
    b" Transfer-Encoding chunked identity close keep-alive upgrade Upgrade websocket h2c TE"
    b" trailers Expect 100-continue X-Forwarded-For X_Real_IP Forwarded HTTP2-Settings 101 204"
).split()
_HTTP_MARKS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"0",
    b"\0",
    b"\xff",
]
_CHUNK_WORDS = [
    b"\r\n",
    b"\r",
    b"\n",
    b";",
    b" ",
    b"0",
    b"00000000000000",
    b"f",
    b"fffffffffffffff",
]
_CHUNK_WORDS += [b"1\r\nx\r\n", b"A\r\n0123456789\r\n", b"02\r\nxx\r\n" * 8, b"7fffffffffffffff"]
_PROXY_WORDS = [b"PROXY ", b"TCP4", b"TCP6", b"UNKNOWN", b"\r\n", b" ", b"::1", b"192.0.2.1"]
_PROXY_WORDS += [
    b"\r\n\r\n\0\r\nQUIT\n",
    b"\x21\x11",
    b"\x21\x21",
    b"\x21\x12",
    b"\0\x0c",
    b"\0\x24",
]
_PROXY_WORDS += [b"\x03\0\x04", b"\x20\0\x05\1", b"\x04\0\0", b"\x01\0\2h2"]
_JSON_WORDS = [b"{", b"}", b"[", b"]", b",", b":", b'"', b"null", b"true", b"-1", b"1e999"]
_JSON_WORDS += [b"[]", b"{}", b'""', b'"\\u001b[2J"', b'"\\ud800"', b"0.5", b"1" + b"0" * 5000]
_ENGINE_WORDS = [b'"%b"' % word for word in b"Id Names Image Labels Ports Type IP State".split()]
_ENGINE_WORDS += [b'"v6fwd.client-ip"', b'"v6fwd.allow.80"', b'"proxy-v2"', b'"PublicPort"', b"\n"]
_CHANNEL_WORDS = [
    b'"Open"',
    b'"Close"',
    b'"Answer"',
    b'"Report"',
    b'"Permit"',
    b'"flows"',
    b'"udp"',
]
_HELPER_WORDS = [b'"look"', b'"join"', b'"ok"', b'"os"', b'"error"', b"S", b"A", b"\4", b"\x10"]
_RULE_WORDS = b"-s -p tcp udp -m --dport --dports 80 -j DROP RETURN --ctstate -g --comment".split()


def _toml_keys() -> list[bytes]:
    """All keys, and values of each kind."""
    keys = {f"\n{key} = " for table in TABLES.values() for key in table}
    values = ("1", "-1", "1e999", "true", "[]", "{}", '""', '"::1"', '"\\u001b"', "1979-05-27")
    return [each.encode() for each in sorted(keys) + list(values)]


def _shim_flags() -> list[bytes]:
    """Flags and values, as in /proc/PID/cmdline."""
    words = "-proto tcp -host-ip :: -host-port 80 -container-ip -container-port -use-listen-fd"
    return [b"\0" + word.encode() for word in words.split()]


WORDS = {
    "requests": [*_HTTP_WORDS, *_HTTP_MARKS],
    "heads": [*_HTTP_WORDS, *_HTTP_MARKS],
    "usual": [*_HTTP_WORDS, *_HTTP_MARKS, b"HTTP/1.1 200 ", b"Connection: keep-alive"],
    "answers": [*_HTTP_WORDS, *_HTTP_MARKS],
    "chunks": _CHUNK_WORDS,
    "proxy-stream": _PROXY_WORDS,
    "proxy-datagram": _PROXY_WORDS,
    "engine": [*_JSON_WORDS, *_ENGINE_WORDS],
    "netlink": [number.to_bytes(size, sys.byteorder) for size in (2, 4) for number in range(40)],
    "channel": [*_JSON_WORDS, *_CHANNEL_WORDS],
    "helper": [*_JSON_WORDS, *_HELPER_WORDS],
    "control": [*_JSON_WORDS, b'"do"', b'"drain"', b'"listen"', b'"[::]:80"'],
    "toml": [b"\n", b" = ", b'"', b"[[forward]]\n", *_toml_keys()],
    "shim": [b"\0", b"-", b"=", b" stop\n", b"9" * 20, *_shim_flags(), *_PROXY_WORDS[-4:]],
    "rules": [b"\n-A DOCKER-USER ", b" ! ", b'"', b":", b",", *_RULE_WORDS],
}
"""What a protocol is made of."""


def kept(target: str) -> list[bytes]:
    """The samples in the folder."""
    lines = FOLDER.joinpath(target).read_text("ascii").splitlines()
    return [ast.literal_eval(line) for line in lines if line]


def seeds(target: str) -> list[bytes]:
    """All samples for a target."""
    found = kept(target)
    if target == "requests":
        raw = [data for data, _ in GOOD.values()]
        raw += [data for data, *_ in (BAD_HEADS | BAD_BODIES).values()]
        raw += [sample.raw for sample in (*gunicorn_samples(), *llhttp_samples())]
        found += [b"\0\x80" + data for data in raw if len(data) < 4096]
    elif target == "heads":
        found += [data for data, _ in GOOD.values() if len(data) < 4096]
        found += [data for data, *_ in BAD_HEADS.values() if len(data) < 4096]
    elif target == "usual":
        raw = [data for data, _ in GOOD.values()] + [data for data, *_ in BAD_HEADS.values()]
        raw += [odd.raw for odd in (ALL_PASS | MENDED).values()]
        found += [b"\0\x40" + data for data in raw if len(data) < 4096]
    elif target == "answers":
        found += [b"\0\x80" + odd.raw for odd in (ALL_PASS | MENDED).values()]
        found += [b"\0\x80" + data for data in ONE_REFUSES.values()]
    return found


def mutated(samples: list[bytes], words: list[bytes], chance: random.Random) -> bytes:
    """One of the samples, changed in up to four places."""
    data = chance.choice(samples)
    for _ in range(chance.randint(1, 4)):
        data = _changed(data, samples, words, chance)
    return data


def _changed(data: bytes, samples: list[bytes], words: list[bytes], chance: random.Random) -> bytes:
    at = chance.randint(0, len(data))
    end = min(len(data), at + chance.randint(1, 12))
    how = chance.randrange(6)
    if how == 0:
        return data[:at] + chance.choice(words) + data[at:]
    if how == 1:
        return data[:at] + chance.choice(words) + data[end:]
    if how == 2:
        return data[:at] + data[end:]
    if how == 3:
        return data[:end] + data[at:]
    if how == 4:
        other = chance.choice(samples)
        return data[:at] + other[chance.randint(0, len(other)) :]
    return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
