"""Requests as clients send them, good and bad; several test files draw from them."""

from __future__ import annotations

from typing import NamedTuple

HOST = b"Host: example.com\r\n"


def get(fields: bytes = HOST, line: bytes = b"GET / HTTP/1.1") -> bytes:
    """A head with these fields."""
    return line + b"\r\n" + fields + b"\r\n"


def with_field(field: bytes) -> bytes:
    """A good head with one more line."""
    return get(HOST + field + b"\r\n")


def with_line(line: bytes) -> bytes:
    """Another request line before good fields."""
    return get(HOST, line)


def chunked(body: bytes) -> bytes:
    """A POST with this as its chunks."""
    return get(HOST + b"Transfer-Encoding: chunked\r\n", b"POST / HTTP/1.1") + body


class Bad(NamedTuple):
    """A request that is refused, and why."""

    raw: bytes
    status: int
    why: str


# What each is called, its bytes, and how many requests it is. No body is left open at the end.
GOOD: dict[str, tuple[bytes, int]] = {
    "plain": (get(), 1),
    "head": (with_line(b"HEAD /x HTTP/1.1"), 1),
    "two": (get() * 2, 2),
    "three, other fields": (get() + with_field(b"A: b") + get(), 3),
    "1.0": (get(b"", b"GET / HTTP/1.0"), 1),
    "1.0 with a host": (get(HOST, b"GET / HTTP/1.0"), 1),
    "1.0 kept alive": (get(b"Connection: keep-alive\r\n", b"GET / HTTP/1.0") * 2, 2),
    "1.1, then 1.0 with the same fields": (get() + with_line(b"GET / HTTP/1.0"), 2),
    "empty lines before": (b"\r\n\r\n" + get(), 1),
    "empty line between": (get() + b"\r\n" + get(), 2),
    "length": (get(HOST + b"Content-Length: 5\r\n", b"POST / HTTP/1.1") + b"hello", 1),
    "length, then another": (
        get(HOST + b"Content-Length: 5\r\n", b"PUT /x HTTP/1.1") + b"he\r\no" + get(),
        2,
    ),
    "length of 0": (with_field(b"Content-Length: 0") + get(), 2),
    "length padded": (with_field(b"Content-Length:\t5 \t") + b"hello", 1),
    "length of a GET": (with_field(b"Content-Length: 3") + b"GET" + get(), 2),
    "chunks": (chunked(b"5\r\nhello\r\n0\r\n\r\n"), 1),
    "chunks, then another": (chunked(b"a\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n") + get(), 2),
    "chunk with upper and lower case": (chunked(b"00A\r\n0123456789\r\n0\r\n\r\n"), 1),
    "chunk that looks like framing": (chunked(b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n"), 1),
    "chunk with an extension": (chunked(b'5;a=b;c;d="e\\" f"\r\nhello\r\n0;z\r\n\r\n'), 1),
    "chunk with blanks in its extension": (chunked(b"5; a;\t b=c\r\nhello\r\n0; z\r\n\r\n"), 1),
    "trailers": (chunked(b"1\r\nx\r\n0;y\r\nDigest: z\r\nX-Forwarded-For: 1\r\n\r\n") + get(), 2),
    "no chunk but the last": (chunked(b"000\r\n\r\n") + get(), 2),
    "chunked in capitals": (
        get(HOST + b"transfer-encoding:  CHUNKED \r\n", b"PUT / HTTP/1.1") + b"0\r\n\r\n",
        1,
    ),
    "options of all": (with_line(b"OPTIONS * HTTP/1.1"), 1),
    "absolute": (with_line(b"GET http://example.com/x?y HTTP/1.1"), 1),
    "absolute, default port, case": (with_line(b"GET HTTP://EXAMPLE.com:80 HTTP/1.1"), 1),
    "absolute, port in Host": (
        get(b"Host: a:80\r\n", b"GET http://a/ HTTP/1.1"),
        1,
    ),
    "absolute, IPv6": (get(b"Host: [::1]:81\r\n", b"GET http://[::1]:81?x HTTP/1.1"), 1),
    "odd but legal target": (with_line(b'GET //a/..;/%00"<>[]{}|\\^`~?? HTTP/1.1'), 1),
    "long target": (with_line(b"GET /" + b"x" * 8000 + b" HTTP/1.1"), 1),
    "method nobody knows": (with_line(b"M-x!#$%&'*+.^_`|~9 / HTTP/1.1"), 1),
    "empty Host": (get(b"Host:\r\n"), 1),
    "IPv6 host": (get(b"Host: [2001:db8::1]:8080\r\n"), 1),
    "host of odd bytes": (get(b"Host: a~!$&'()*+;=b:\r\n"), 1),
    "host with an underscore": (get(b"Host: my_service:80\r\n"), 1),
    "value of any byte": (with_field(b"A: \t" + bytes({*range(32, 256)} - {127}) + b" \t"), 1),
    "empty value": (with_field(b"A:") + with_field(b"A: \t "), 2),
    "name of any token byte": (with_field(b"!#$%&'*+-.^`|~09azAZ: x"), 1),
    "a hundred fields": (get(HOST + b"A: b\r\n" * 99), 1),
    "expectation": (with_field(b"Expect: 100-Continue") + get(), 2),
    "close": (with_field(b"Connection: close"), 1),
    "what follows close": (with_field(b"Connection: x, Close ,") + b"\0garbage", 1),
    "keep-alive named": (with_field(b"Connection: keep-alive") * 2, 2),
    "h2c offered": (with_field(b"Connection: Upgrade\r\nUpgrade: h2c") + get(), 2),
    "websocket": (with_field(b"Connection: Upgrade\r\nUpgrade: websocket"), 1),
    "websocket with a body": (
        with_field(b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1")
        + b"x"
        + get(),
        1,
    ),
    "hijack": (
        get(
            HOST + b"Content-Length: 2\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n",
            b"POST /v1.46/exec/1/start HTTP/1.1",
        )
        + b"{}ls\n",
        1,
    ),
    "websocket with chunks": (
        with_field(b"Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked")
        + b"1\r\nx\r\n0\r\n\r\n"
        + get(),
        2,
    ),
    "TLS offered": (with_field(b"Connection: Upgrade\r\nUpgrade: TLS/1.2, tls/1.3") + get(), 2),
    "zone": (get(b"Host: [fe80::1%eth0]:8080\r\n"), 1),
    "zone as in a URI": (get(b"Host: [fe80::1%25br-0.1]\r\n"), 1),
    "websocket in 1.0": (
        get(b"Connection: Upgrade, keep-alive\r\nUpgrade: websocket\r\n", b"GET / HTTP/1.0") * 2,
        2,
    ),
}

_MALFORMED_LINES = {
    "no version": b"GET /",
    "no target": b"GET HTTP/1.1",
    "nothing": b"GET",
    "two blanks": b"GET  / HTTP/1.1",
    "two blanks behind": b"GET /  HTTP/1.1",
    "blank at the end": b"GET / HTTP/1.1 ",
    "blank before": b" GET / HTTP/1.1",
    "tab": b"GET\t/ HTTP/1.1",
    "blank in the target": b"GET /a b HTTP/1.1",
    "fragment": b"GET /a#b HTTP/1.1",
    "non-ASCII target": b"GET /\xc3\xa4 HTTP/1.1",
    "non-ASCII method": b"G\xc3T / HTTP/1.1",
    "method with a colon": b"GET: / HTTP/1.1",
    "method with brackets": b"(GET) / HTTP/1.1",
    "lower case version": b"GET / http/1.1",
    "version of two digits": b"GET / HTTP/1.10",
    "version with zeros": b"GET / HTTP/01.1",
    "version without a dot": b"GET / HTTP/11",
    "comma for a dot": b"GET / HTTP/1,1",
    "another protocol": b"GET / RTSP/1.1",
    "a response": b"HTTP/1.1 200 OK",
    "a field": b"Host: example.com",
}
_BAD_TARGETS = {
    "relative": b"GET x HTTP/1.1",
    "authority without CONNECT": b"GET example.com:80 HTTP/1.1",
    "query alone": b"GET ?x HTTP/1.1",
    "star of a GET": b"GET * HTTP/1.1",
    "https": b"GET https://example.com/ HTTP/1.1",
    "another scheme": b"GET ftp://example.com/ HTTP/1.1",
    "user": b"GET http://user@example.com/ HTTP/1.1",
    "scheme alone": b"GET http:// HTTP/1.1",
    "scheme and path": b"GET http:///x HTTP/1.1",
    "backslash": b"GET http://example.com\\x HTTP/1.1",
}
_DIFFERENT = {
    "other host": b"GET http://evil/ HTTP/1.1",
    "other port": b"GET http://example.com:81/ HTTP/1.1",
    "longer host": b"GET http://example.com.evil/ HTTP/1.1",
    "no host": b"GET http://:80/ HTTP/1.1",
}
_BAD_NAMES = {
    "non-ASCII": b"\xc3\xa4: x",
    "bracket": b"A(b): x",
    "blank inside": b"A b: x",
    "empty": b": x",
    "quote": b'"A": x',
    "slash": b"A/b: x",
    "at": b"A@b: x",
}
_BAD_HOSTS = {
    "user": b"a@b",
    "path": b"a/b",
    "blank": b"a b",
    "comma": b"a,b",
    "two ports": b"a:1:2",
    "port too large": b"a:65536",
    "port of letters": b"a:http",
    "port alone": b":80",
    "IPv6 without brackets": b"::1",
    "half a bracket": b"[::1",
    "no IPv6": b"[1::2::3]",
    "name in brackets": b"[a]",
    "zone with a slash": b"[fe80::1%25eth/0]",
    "zone without a name": b"[fe80::1%]",
    "zone too long": b"[fe80::1%25eth012345678901234]",
    "zone outside brackets": b"fe80::1%25eth0",
    "zone alone": b"[%25eth0]",
    "non-ASCII": b"\xc3\xa4",
    "percent": b"a%00b",
    "quote": b'a"b',
    "angle": b"<a>",
    "very long": b"a" * 300,
}
_BAD_LENGTHS = {
    "empty": b"",
    "plus": b"+5",
    "minus": b"-5",
    "blank inside": b"5 5",
    "list": b"5, 5",
    "hexadecimal": b"0x5",
    "zeros": b"05",
    "two zeros": b"00",
    "fraction": b"5.0",
    "exponent": b"5e0",
    "underscore": b"1_0",
    "letters": b"five",
    "comma": b"5,",
    "above 63 bits": b"9223372036854775808",
    "above 64 bits": b"18446744073709551621",
    "very long": b"1" * 400,
    "superscript": b"\xb2",
    "quoted": b'"5"',
}
_BAD_CODINGS = {
    "twice": (b"chunked, chunked", 400),
    "not last": (b"chunked, gzip", 400),
    "behind another": (b"gzip, chunked", 400),
    "parameter": (b"chunked;q=1", 400),
    "empty": (b"", 400),
    "comma": (b"chunked,", 400),
    "comma before": (b",chunked", 400),
    "quoted": (b'"chunked"', 400),
    "vertical": (b"\xa0chunked", 400),
    "longer": (b"xchunked", 400),
    "blank inside": (b"chun ked", 400),
    "other": (b"gzip", 501),
    "identity": (b"identity", 501),
    "two others": (b"gzip, br", 501),
}
_BAD_CHUNKS = {
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "no hexadecimal": b"g\r\nhello\r\n0\r\n\r\n",
    "prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "minus": b"-1\r\nhello\r\n0\r\n\r\n",
    "underscore": b"1_0\r\nhello\r\n0\r\n\r\n",
    "blank before": b" 5\r\nhello\r\n0\r\n\r\n",
    "blank behind": b"5 \r\nhello\r\n0\r\n\r\n",
    "sixteen digits": b"0000000000000005\r\nhello\r\n0\r\n\r\n",
    "overflow": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "bare LF": b"5\nhello\r\n0\r\n\r\n",
    "bare CR": b"5\rhello\r\n0\r\n\r\n",
    "bare LF behind": b"5\r\nhello\n0\r\n\r\n",
    "too long": b"5\r\nhelloo\r\n0\r\n\r\n",
    "too short": b"6\r\nhello\r\n0\r\n\r\n",
    "no CRLF behind": b"5\r\nhello0\r\n\r\n",
    "empty extension": b"5;\r\nhello\r\n0\r\n\r\n",
    "blank before an extension": b"5 ;a\r\nhello\r\n0\r\n\r\n",
    "LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "NUL in an extension": b"5;a\0b\r\nhello\r\n0\r\n\r\n",
    "open quote": b'5;a="b\r\nhello\r\n0\r\n\r\n',
    "long extension": b"5;" + b"a" * 300 + b"\r\nhello\r\n0\r\n\r\n",
    "blank behind the last": b"0 \r\n\r\n",
    "bare LF behind the last": b"0\n\r\n",
}
_BAD_TRAILERS = {
    "no colon": b"0\r\nX\r\n\r\n",
    "folded": b"0\r\nA: b\r\n c\r\n\r\n",
    "blank before the colon": b"0\r\nA : b\r\n\r\n",
    "bare LF": b"0\r\nA: b\n\r\n",
    "another request": b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "control byte": b"0\r\nA: \x01\r\n\r\n",
}
_LONG_FIELD = b"A: " + b"x" * 20000

BAD_HEADS: dict[str, Bad] = {
    **{
        f"line: {name}": Bad(with_line(line), 400, "malformed request line")
        for name, line in _MALFORMED_LINES.items()
    },
    **{
        f"target: {name}": Bad(with_line(line), 400, "malformed request target")
        for name, line in _BAD_TARGETS.items()
    },
    **{
        f"authority: {name}": Bad(with_line(line), 400, "request target and Host differ")
        for name, line in _DIFFERENT.items()
    },
    "absolute without Host": Bad(
        get(b"", b"GET http://a/ HTTP/1.0"), 400, "request target and Host differ"
    ),
    "absolute with an empty Host": Bad(
        get(b"Host:\r\n", b"GET http://a/ HTTP/1.1"), 400, "request target and Host differ"
    ),
    "absolute without an authority": Bad(
        get(b"Host:\r\n", b"GET http://:80/ HTTP/1.1"), 400, "request target and Host differ"
    ),
    "version 2.0": Bad(
        with_line(b"GET / HTTP/2.0"), 505, "version other than HTTP/1.0 and HTTP/1.1"
    ),
    "version 1.2": Bad(
        with_line(b"GET / HTTP/1.2"), 505, "version other than HTTP/1.0 and HTTP/1.1"
    ),
    "version 0.9": Bad(
        with_line(b"GET / HTTP/0.9"), 505, "version other than HTTP/1.0 and HTTP/1.1"
    ),
    "HTTP/2 preface with more": Bad(
        b"PRI * HTTP/2.0\r\n\r\nXX", 505, "version other than HTTP/1.0 and HTTP/1.1"
    ),
    "head in lower case": Bad(with_line(b"head / HTTP/1.1"), 400, "method in lower case"),
    "connect in lower case": Bad(with_line(b"Connect a:80 HTTP/1.1"), 400, "method in lower case"),
    "CONNECT": Bad(
        get(b"Host: a:443\r\n", b"CONNECT a:443 HTTP/1.1"), 405, "CONNECT is not served here"
    ),
    "CONNECT with a path": Bad(with_line(b"CONNECT / HTTP/1.1"), 405, "CONNECT is not served here"),
    "0.9": Bad(b"GET /\r\n", 400, "malformed request line"),
    "line too long": Bad(
        with_line(b"GET /" + b"x" * 8177 + b" HTTP/1.1"), 414, "request line too long"
    ),
    "endless line": Bad(b"GET /" + b"x" * 9000, 414, "request line too long"),
    "endless garbage": Bad(b"A" * 9000, 414, "request line too long"),
    "head too large": Bad(with_field(_LONG_FIELD), 431, "request head too large"),
    "endless head": Bad(get()[:-2] + b"A: b\r\n" * 3000, 431, "request head too large"),
    "too many fields": Bad(get(HOST + b"A: b\r\n" * 100), 431, "too many fields"),
    "empty lines": Bad(b"\r\n" * 5 + get(), 400, "empty lines before a request"),
    "bare LF before": Bad(b"\n" + get(), 400, "bare LF in the head"),
    "bare CR before": Bad(b"\r" + get(), 400, "bare CR in the head"),
    "bare LFs": Bad(get().replace(b"\r\n", b"\n"), 400, "bare LF in the head"),
    "bare CRs": Bad(get().replace(b"\r\n", b"\r"), 400, "bare CR in the head"),
    "bare LF in the line": Bad(with_line(b"GET /\nX HTTP/1.1"), 400, "bare LF in the head"),
    "two CRs behind the line": Bad(with_line(b"GET / HTTP/1.1\r"), 400, "bare CR in the head"),
    "bare LF behind a field": Bad(get(HOST + b"A: b\nC: d\r\n"), 400, "bare LF in the head"),
    "bare CR in a value": Bad(with_field(b"A: b\rC: d"), 400, "bare CR in the head"),
    "CR at the end of a value": Bad(with_field(b"A: b\r"), 400, "bare CR in the head"),
    "NUL before the first name": Bad(get(b"\0A: b\r\n" + HOST), 400, "control byte in the head"),
    "LF for the empty line": Bad(get()[:-2] + b"\n", 400, "bare LF in the head"),
    "NUL in the line": Bad(with_line(b"GET /\0 HTTP/1.1"), 400, "control byte in the head"),
    "DEL in the line": Bad(with_line(b"GET /\x7f HTTP/1.1"), 400, "control byte in the head"),
    "NUL in a value": Bad(with_field(b"A: b\0c"), 400, "control byte in the head"),
    "NUL in a name": Bad(with_field(b"A\0: b"), 400, "control byte in the head"),
    "ESC in a value": Bad(with_field(b"A: \x1b[31m"), 400, "control byte in the head"),
    "vertical tab": Bad(with_field(b"A:\x0bb"), 400, "control byte in the head"),
    "folded field": Bad(with_field(b"A: b\r\n c"), 400, "folded field"),
    "folded with a tab": Bad(with_field(b"A: b\r\n\tc"), 400, "folded field"),
    "the first fault is told": Bad(with_field(b"A@: b\r\nno colon"), 400, "malformed field name"),
    "folded first": Bad(get(b" x: y\r\n" + HOST), 400, "folded field"),
    "blank before a colon": Bad(with_field(b"A : b"), 400, "blank before a colon"),
    "tab before a colon": Bad(with_field(b"Content-Length\t: 5"), 400, "blank before a colon"),
    "no colon": Bad(with_field(b"A"), 400, "field without a colon"),
    **{
        f"name: {name}": Bad(with_field(line), 400, "malformed field name")
        for name, line in _BAD_NAMES.items()
    },
    "no Host": Bad(get(b"A: b\r\n"), 400, "no Host"),
    "no field": Bad(get(b""), 400, "no Host"),
    "two Hosts": Bad(with_field(b"host: example.com"), 400, "more than one Host"),
    "two Hosts in 1.0": Bad(
        get(HOST + b"Host: b\r\n", b"GET / HTTP/1.0"), 400, "more than one Host"
    ),
    "Host misspelt": Bad(get(b"Ho_st: a\r\n"), 400, "no Host"),
    **{
        f"host: {name}": Bad(get(b"Host: " + value + b"\r\n"), 400, "malformed Host")
        for name, value in _BAD_HOSTS.items()
    },
    **{
        f"length: {name}": Bad(
            with_field(b"Content-Length: " + value), 400, "malformed Content-Length"
        )
        for name, value in _BAD_LENGTHS.items()
    },
    "two lengths": Bad(
        with_field(b"Content-Length: 5\r\nContent-Length: 6"), 400, "more than one Content-Length"
    ),
    "the same length twice": Bad(
        with_field(b"Content-Length: 5\r\ncontent-length: 5"), 400, "more than one Content-Length"
    ),
    "length and chunks": Bad(
        with_field(b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
        400,
        "both Content-Length and Transfer-Encoding",
    ),
    "chunks and length": Bad(
        with_field(b"Transfer-Encoding: x\r\nContent-Length: 0"),
        400,
        "both Content-Length and Transfer-Encoding",
    ),
    "chunks in 1.0": Bad(
        get(HOST + b"Transfer-Encoding: chunked\r\n", b"POST / HTTP/1.0"),
        400,
        "Transfer-Encoding in HTTP/1.0",
    ),
    "two codings": Bad(
        with_field(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        400,
        "malformed Transfer-Encoding",
    ),
    "two codings, the first another": Bad(
        with_field(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"),
        400,
        "malformed Transfer-Encoding",
    ),
    **{
        f"coding: {name}": Bad(
            with_field(b"Transfer-Encoding: " + value),
            status,
            "malformed Transfer-Encoding"
            if status == 400
            else "Transfer-Encoding other than chunked",
        )
        for name, (value, status) in _BAD_CODINGS.items()
    },
    "expectation of another thing": Bad(
        with_field(b"Expect: 200-ok"), 417, "Expect other than 100-continue"
    ),
    "two expectations": Bad(
        with_field(b"Expect: 100-continue\r\nExpect: 100-continue"),
        417,
        "Expect other than 100-continue",
    ),
    "empty expectation": Bad(with_field(b"Expect:"), 417, "Expect other than 100-continue"),
    "connection of no token": Bad(with_field(b"Connection: close x"), 400, "malformed Connection"),
    "connection quoted": Bad(with_field(b'Connection: "close"'), 400, "malformed Connection"),
    "1.0 both kept alive and closed": Bad(
        get(b"Connection: keep-alive, close\r\n", b"GET / HTTP/1.0"), 400, "head read in two ways"
    ),
    "upgrade of no token": Bad(
        with_field(b"Connection: upgrade\r\nUpgrade: a b"), 400, "malformed Upgrade"
    ),
    "TLS": Bad(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400, "this is TLS, not HTTP/1.1"),
    "HTTP/2": Bad(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0", 505, "this is HTTP/2, not HTTP/1.1"),
}
"""Refused before a byte of them is let through."""

BAD_BODIES: dict[str, Bad] = {
    **{
        f"chunk: {name}": Bad(chunked(body), 400, "malformed chunk")
        for name, body in _BAD_CHUNKS.items()
    },
    **{
        f"trailer: {name}": Bad(chunked(body), 400, "malformed trailer field")
        for name, body in _BAD_TRAILERS.items()
    },
    "trailers too large": Bad(
        chunked(b"0\r\n" + _LONG_FIELD + b"\r\n\r\n"), 431, "trailer fields too large"
    ),
    "too many trailers": Bad(
        chunked(b"0\r\n" + b"A: b\r\n" * 101 + b"\r\n"), 431, "trailer fields too large"
    ),
}
"""Refused in the body: the head is through, and the request stays incomplete for the target."""
