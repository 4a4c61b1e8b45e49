"""Samples that a fuzzer starts from: what the tests know, and what fuzzing has found.

`corpus/TARGET` has one sample a line, written as a bytes literal of Python; what a fuzzer finds
is added there, so that it is tried again for ever.
"""

from __future__ import annotations

import ast
import random
from pathlib import Path

from tests.corpora.reading import gunicorn_samples, llhttp_samples
from tests.unit.client_ip.http_odd_answers import ALL_PASS, MENDED, ONE_REFUSES
from tests.unit.client_ip.http_samples import BAD_BODIES, BAD_HEADS, GOOD

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
WORDS = {
    "requests": [*_HTTP_WORDS, *_HTTP_MARKS],
    "answers": [*_HTTP_WORDS, *_HTTP_MARKS],
    "proxy-stream": _PROXY_WORDS,
    "proxy-datagram": _PROXY_WORDS,
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
