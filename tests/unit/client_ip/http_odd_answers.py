"""Answers that are not by the letter: what becomes of them, and what others do with them.

What is in ALL_PASS was given to HAProxy 2.6, nginx 1.22 and curl 7.88, which all pass or take
it; tests/servers/test_odd_answers.py holds the table to them. MENDED is what RFC 9112 tells a
proxy to mend, though one of the three refuses it. ONE_REFUSES are kin that stay refused.
"""

from __future__ import annotations

from typing import NamedTuple

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: 2\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CLOSE = b"Connection: close\r\n"
CHUNKS = b"2\r\nok\r\n0\r\n\r\n"


class Odd(NamedTuple):
    """An answer, what the client gets of it, and whether the connection ends behind it."""

    raw: bytes
    clean: bytes
    ends: bool = False


def head(fields: bytes, line: bytes = OK) -> bytes:
    """A head with these fields."""
    return line + fields + b"\r\n"


def chunks(body: bytes) -> bytes:
    """An answer with these chunks."""
    return head(CHUNKED) + body


def _line(line: bytes, clean: bytes = OK, *, ends: bool = False) -> Odd:
    fields = LENGTH + CLOSE if ends else LENGTH
    return Odd(head(LENGTH, line) + b"ok", head(fields, clean) + b"ok", ends)


def _field(line: bytes, clean: bytes) -> Odd:
    return Odd(head(line + LENGTH) + b"ok", head(clean + LENGTH) + b"ok")


def _length(value: bytes, *, ends: bool = False) -> Odd:
    raw = head(b"Content-Length: " + value + b"\r\n") + b"ok"
    return Odd(raw, head(LENGTH + CLOSE if ends else LENGTH) + b"ok", ends)


def _coding(fields: bytes, line: bytes = OK, *, ends: bool = False) -> Odd:
    clean = head(CHUNKED + CLOSE if ends else CHUNKED) + CHUNKS
    return Odd(head(fields, line) + CHUNKS, clean, ends)


def _chunks(body: bytes, *, ends: bool = False) -> Odd:
    return Odd(chunks(body), chunks(CHUNKS), ends)


_ENDED = head(LENGTH + CLOSE) + b"ok"

ALL_PASS: dict[str, Odd] = {
    "blank behind a chunk's size": _chunks(b"2 \r\nok\r\n0\r\n\r\n"),
    "tab behind a chunk's size": _chunks(b"2\t\r\nok\r\n0\r\n\r\n"),
    "size padded with blanks": _chunks(b"2      \r\nok\r\n0\r\n\r\n"),
    "blank behind the last chunk": _chunks(b"2\r\nok\r\n0 \r\n\r\n"),
    "blank before an extension": _chunks(b"2 ;a\r\nok\r\n0\r\n\r\n"),
    "blank behind an extension": _chunks(b"2;a \r\nok\r\n0\r\n\r\n"),
    "empty extension": _chunks(b"2;\r\nok\r\n0\r\n\r\n"),
    "extension with blanks": _chunks(b"2; a = b\r\nok\r\n0\r\n\r\n"),
    "extension without a value": _chunks(b"2;a=\r\nok\r\n0\r\n\r\n"),
    "extension of odd bytes": _chunks(b"2;a@b/c\r\nok\r\n0\r\n\r\n"),
    "extension with an open quote": _chunks(b'2;a="b\r\nok\r\n0\r\n\r\n'),
    "LF in chunks": _chunks(b"2\nok\n0\n\n", ends=True),
    "LF behind a size": _chunks(b"2\nok\r\n0\r\n\r\n", ends=True),
    "LF behind the data": _chunks(b"2\r\nok\n0\r\n\r\n", ends=True),
    "LF behind the last chunk": _chunks(b"2\r\nok\r\n0\n\r\n", ends=True),
    "LF as the last line": _chunks(b"2\r\nok\r\n0\r\n\n", ends=True),
    "sixteen digits": _chunks(b"0000000000000002\r\nok\r\n0\r\n\r\n"),
    "trailer with LF": _chunks(b"2\r\nok\r\n0\r\nA: b\n\r\n"),
    "trailer folded": _chunks(b"2\r\nok\r\n0\r\nA: b\r\n c\r\n\r\n"),
    "length as a list": _length(b"2, 2"),
    "length as a list without blanks": _length(b"2,2"),
    "length with zeros": _length(b"02", ends=True),
    "length and chunks": _coding(LENGTH + CHUNKED, ends=True),
    "chunks and length": _coding(CHUNKED + LENGTH, ends=True),
    "chunked with a comma": _coding(b"Transfer-Encoding: chunked,\r\n"),
    "chunks in 1.0": _coding(CHUNKED, b"HTTP/1.0 200 OK\r\n", ends=True),
    "empty coding": Odd(head(b"Transfer-Encoding:\r\n" + LENGTH) + b"ok", _ENDED, ends=True),
    "LF in the head": Odd(
        b"HTTP/1.1 200 OK\nA: b\nContent-Length: 2\n\nok", head(b"A: b\r\n" + LENGTH) + b"ok"
    ),
    "LF behind a field": Odd(
        OK + b"A: b\n" + LENGTH + b"\r\nok", head(b"A: b\r\n" + LENGTH + CLOSE) + b"ok", ends=True
    ),
    "LF behind the status": Odd(b"HTTP/1.1 200 OK\n" + LENGTH + b"\r\nok", _ENDED, ends=True),
    "LF for the empty line": Odd(OK + LENGTH + b"\nok", _ENDED, ends=True),
    "CRLF for the empty line alone": Odd(
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\r\nok", _ENDED, ends=True
    ),
    "LF in an interim head": Odd(
        b"HTTP/1.1 103 Early\nLink: x\n\n" + head(LENGTH) + b"ok",
        b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + head(LENGTH) + b"ok",
    ),
    "two blanks before the status": _line(b"HTTP/1.1  200 OK\r\n"),
    "tab before the reason": _line(b"HTTP/1.1 200\tOK\r\n"),
    "control byte in the reason": _line(b"HTTP/1.1 200 O\x01K\r\n", b"HTTP/1.1 200 O K\r\n"),
    "version 2.0": _line(b"HTTP/2.0 200 OK\r\n", ends=True),
    "control byte in a value": _field(b"A: b\x01c\r\n", b"A: b c\r\n"),
    "escape in a value": _field(b"A: \x1b[0m\r\n", b"A: [0m\r\n"),
    "DEL in a value": _field(b"A: b\x7fc\r\n", b"A: b c\r\n"),
    "vertical tab in a value": _field(b"A: b\x0bc\r\n", b"A: b c\r\n"),
}

MENDED: dict[str, Odd] = {
    "blank before the colon of a trailer": _chunks(b"2\r\nok\r\n0\r\nA : b\r\n\r\n"),
    "folded field": _field(b"A: b\r\n  c\r\n", b"A: b c\r\n"),
    "folded with a tab": _field(b"A: b\r\n\tc\r\n\td\r\n", b"A: b c d\r\n"),
    "blank before a colon": _field(b"A : b\r\n", b"A: b\r\n"),
    "blank before the colon of the length": Odd(
        head(b"Content-Length : 2\r\n") + b"ok", _ENDED, ends=True
    ),
    "blank before the colon of Connection": Odd(
        head(b"Connection : keep-alive, X\r\n" + LENGTH) + b"ok",
        head(LENGTH + b"Connection: X, close\r\n") + b"ok",
        ends=True,
    ),
}

ONE_REFUSES: dict[str, bytes] = {
    "blank before a chunk's size": chunks(b" 2\r\nok\r\n0\r\n\r\n"),
    "size with a prefix": chunks(b"0x2\r\nok\r\n0\r\n\r\n"),
    "seventeen digits": chunks(b"00000000000000002\r\nok\r\n0\r\n\r\n"),
    "trailer without a colon": chunks(b"2\r\nok\r\n0\r\nA\r\n\r\n"),
    "two lengths": head(LENGTH + b"Content-Length: 3\r\n") + b"ok",
    "length as a list of two": head(b"Content-Length: 2, 3\r\n") + b"ok",
    "length with a comma": head(b"Content-Length: 2,\r\n") + b"ok",
    "length with a plus": head(b"Content-Length: +2\r\n") + b"ok",
    "length of a letter": head(b"Content-Length: 2x\r\n") + b"ok",
    "empty length": head(b"Content-Length:\r\n") + b"ok",
    "folded length": head(b"Content-Length:\r\n 2\r\n") + b"ok",
    "folded first": head(b" A: b\r\n" + LENGTH) + b"ok",
    "chunked twice": head(b"Transfer-Encoding: chunked, chunked\r\n") + CHUNKS,
    "chunked in two lines": head(CHUNKED * 2) + CHUNKS,
    "gzip, chunked": head(b"Transfer-Encoding: gzip, chunked\r\n") + CHUNKS,
    "identity": head(b"Transfer-Encoding: identity\r\n" + LENGTH) + b"ok",
    "tab before the status": head(LENGTH, b"HTTP/1.1\t200 OK\r\n") + b"ok",
    "reason without a blank": head(LENGTH, b"HTTP/1.1 200OK\r\n") + b"ok",
    "two digits": head(LENGTH, b"HTTP/1.1 20 OK\r\n") + b"ok",
    "status 099": head(LENGTH, b"HTTP/1.1 099 OK\r\n") + b"ok",
    "version 1.2": head(LENGTH, b"HTTP/1.2 200 OK\r\n") + b"ok",
    "lower case": head(LENGTH, b"http/1.1 200 OK\r\n") + b"ok",
    "empty line before": b"\r\n" + head(LENGTH) + b"ok",
    "no colon": head(b"A\r\n" + LENGTH) + b"ok",
    "no name": head(b": b\r\n" + LENGTH) + b"ok",
    "blank in a name": head(b"A b: c\r\n" + LENGTH) + b"ok",
    "odd byte in a name": head(b"A@b: c\r\n" + LENGTH) + b"ok",
    "NUL in a value": head(b"A: b\0c\r\n" + LENGTH) + b"ok",
    "CR in a value": head(b"A: b\rc\r\n" + LENGTH) + b"ok",
    "CR behind a value": head(b"A: b\r\r\n" + LENGTH) + b"ok",
}
