"""Responses: what is let through, where they end, and what is wrong with bad ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pytest

from tests.support.http_reading import every_cut, hurry
from v6fwd.client_ip.http.responses import MAX_INTERIM, UNTIL_EOF, ResponseStream
from v6fwd.client_ip.http.syntax import Kind

PLAIN, HEAD, CONNECT, UPGRADE = Kind.PLAIN, Kind.HEAD, Kind.CONNECT, Kind.UPGRADE

OK = b"HTTP/1.1 200 OK\r\n"
SHORT = OK + b"Date: now\r\nContent-Length: 5\r\nServer: x\r\n\r\nhello"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class End(NamedTuple):
    """Where a stream is when it was given everything."""

    out: bytes
    outstanding: int = 0
    passing: int = 0
    error: str = ""
    began: bool = False
    switched: bool = False
    answered_upgrade: bool = False
    ended: str = ""


def feed(kinds: Iterable[Kind], parts: Iterable[bytes], *, splice: bool = False) -> End:
    """Give the parts to a stream that expects answers to these requests."""
    stream = ResponseStream()
    for kind in kinds:
        stream.expect(kind)
    out: list[bytes] = []
    for part in parts:
        data = part
        if splice and stream.passing and not stream.error:
            step = len(data) if stream.passing == UNTIL_EOF else min(stream.passing, len(data))
            out.append(data[:step])
            stream.passed(step)
            data = data[step:]
        if data:
            out += [bytes(piece) for piece in stream.receive(data)]
    state = (stream.outstanding, stream.passing, stream.error, stream.began)
    rest = (stream.switched, stream.answered_upgrade, stream.ended())
    return End(b"".join(out), *state, *rest)


def response(fields: bytes, body: bytes = b"", line: bytes = OK) -> bytes:
    """A response with these fields."""
    return line + fields + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    """A response with these chunks."""
    return response(b"Transfer-Encoding: chunked\r\n", body)


GOOD: dict[str, tuple[list[Kind], bytes, End]] = {
    "length": ([PLAIN], SHORT, End(SHORT)),
    "two": ([PLAIN, PLAIN], SHORT * 2, End(SHORT * 2)),
    "one of two": (
        [PLAIN, PLAIN],
        SHORT,
        End(SHORT, outstanding=1, ended="closed without an answer"),
    ),
    "length of 0": (
        [PLAIN],
        response(b"Content-Length: 0\r\n"),
        End(response(b"Content-Length: 0\r\n")),
    ),
    "length twice, the same": (
        [PLAIN, PLAIN],
        response(b"Content-Length: 1\r\ncontent-length:  1 \r\n", b"x") + SHORT,
        End(response(b"Content-Length: 1\r\ncontent-length:  1 \r\n", b"x") + SHORT),
    ),
    "kept alive": (
        [PLAIN, PLAIN],
        response(b"Connection: Keep-Alive\r\nContent-Length: 1\r\n", b"x") * 2,
        End(response(b"Connection: Keep-Alive\r\nContent-Length: 1\r\n", b"x") * 2),
    ),
    "not whole": (
        [PLAIN],
        SHORT[:-2],
        End(
            SHORT[:-2],
            outstanding=1,
            passing=2,
            began=True,
            ended="closed in the middle of a response",
        ),
    ),
    "head not whole": (
        [PLAIN],
        SHORT[:20],
        End(b"", outstanding=1, ended="closed in the middle of a response"),
    ),
    "second head not whole": (
        [PLAIN, PLAIN],
        SHORT + b"HT",
        End(SHORT, outstanding=1, ended="closed in the middle of a response"),
    ),
    "chunks": (
        [PLAIN, PLAIN],
        chunked(b"5\r\nhello\r\n0\r\n\r\n") * 2,
        End(chunked(b"5\r\nhello\r\n0\r\n\r\n") * 2),
    ),
    "chunks with all that is allowed": (
        [PLAIN, PLAIN],
        chunked(b'05;a="b"\r\nhello\r\n00;x\r\nDigest: y\r\nB:\r\n\r\n') + SHORT,
        End(chunked(b'05;a="b"\r\nhello\r\n00;x\r\nDigest: y\r\nB:\r\n\r\n') + SHORT),
    ),
    "chunk not whole": (
        [PLAIN],
        chunked(b"5\r\nhe"),
        End(
            chunked(b"5\r\nhe"),
            outstanding=1,
            passing=3,
            began=True,
            ended="closed in the middle of a response",
        ),
    ),
    "no last chunk": (
        [PLAIN],
        chunked(b"5\r\nhello\r\n"),
        End(
            chunked(b"5\r\nhello\r\n"),
            outstanding=1,
            began=True,
            ended="closed in the middle of a response",
        ),
    ),
    "size not whole": (
        [PLAIN],
        chunked(b"5"),
        End(chunked(b""), outstanding=1, began=True, ended="closed in the middle of a response"),
    ),
    "until the end": (
        [PLAIN],
        response(b"", b"x" * 9),
        End(response(b"", b"x" * 9), outstanding=1, passing=UNTIL_EOF, began=True),
    ),
    "until the end, empty": (
        [PLAIN],
        response(b"Connection: close\r\n"),
        End(response(b"Connection: close\r\n"), outstanding=1, passing=UNTIL_EOF, began=True),
    ),
    "1.0 until the end": (
        [PLAIN, PLAIN],
        b"HTTP/1.0 200\r\n\r\nx",
        End(b"HTTP/1.0 200\r\n\r\nx", outstanding=2, passing=UNTIL_EOF, began=True),
    ),
    "1.0 kept alive": (
        [PLAIN, PLAIN],
        response(b"Connection: keep-alive\r\nContent-Length: 0\r\n", line=b"HTTP/1.0 200 \r\n") * 2,
        End(
            response(b"Connection: keep-alive\r\nContent-Length: 0\r\n", line=b"HTTP/1.0 200 \r\n")
            * 2
        ),
    ),
    "head": (
        [HEAD, PLAIN],
        OK + b"Content-Length: 500\r\n\r\n" + SHORT,
        End(OK + b"Content-Length: 500\r\n\r\n" + SHORT),
    ),
    "head of chunks": ([HEAD, PLAIN], chunked(b"") + SHORT, End(chunked(b"") + SHORT)),
    "204": (
        [PLAIN, PLAIN],
        response(b"Content-Length: 7\r\n", line=b"HTTP/1.1 204 No Content\r\n") + SHORT,
        End(response(b"Content-Length: 7\r\n", line=b"HTTP/1.1 204 No Content\r\n") + SHORT),
    ),
    "304": (
        [PLAIN, PLAIN],
        response(b"Content-Length: 7\r\n", line=b"HTTP/1.1 304 Not Modified\r\n") + SHORT,
        End(response(b"Content-Length: 7\r\n", line=b"HTTP/1.1 304 Not Modified\r\n") + SHORT),
    ),
    "100": ([PLAIN], CONTINUE + SHORT, End(CONTINUE + SHORT)),
    "100 alone": (
        [PLAIN],
        CONTINUE,
        End(CONTINUE, outstanding=1, ended="closed without an answer"),
    ),
    "103 with fields": (
        [PLAIN],
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 9\r\n\r\n" + SHORT,
        End(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 9\r\n\r\n" + SHORT),
    ),
    "100 to HEAD": ([HEAD], CONTINUE + chunked(b""), End(CONTINUE + chunked(b""))),
    "101": (
        [UPGRADE],
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\x81\0HTTP",
        End(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\x81\0HTTP", switched=True),
    ),
    "101 behind another": (
        [PLAIN, UPGRADE],
        SHORT + CONTINUE + b"HTTP/1.1 101 x\r\n\r\n\0",
        End(SHORT + CONTINUE + b"HTTP/1.1 101 x\r\n\r\n\0", switched=True),
    ),
    "refused upgrade": (
        [UPGRADE, PLAIN],
        SHORT * 2,
        End(SHORT * 2, answered_upgrade=True),
    ),
    "connected": (
        [CONNECT],
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\x16\x03",
        End(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\x16\x03", switched=True),
    ),
    "not connected": (
        [CONNECT, PLAIN],
        response(b"Content-Length: 3\r\n", b"abc", b"HTTP/1.1 403 No\r\n") + SHORT,
        End(
            response(b"Content-Length: 3\r\n", b"abc", b"HTTP/1.1 403 No\r\n") + SHORT,
            answered_upgrade=True,
        ),
    ),
    "the last, and a request behind it": (
        [PLAIN, PLAIN],
        response(b"Connection: x, Close\r\nContent-Length: 1\r\n", b"x"),
        End(response(b"Connection: x, Close\r\nContent-Length: 1\r\n", b"x")),
    ),
    "no reason": ([PLAIN], SHORT.replace(b" OK", b""), End(SHORT.replace(b" OK", b""))),
    "reason of any byte": (
        [PLAIN],
        SHORT.replace(b"OK", b"\xc3\t:"),
        End(SHORT.replace(b"OK", b"\xc3\t:")),
    ),
    "other status": ([PLAIN], SHORT.replace(b"200", b"999"), End(SHORT.replace(b"200", b"999"))),
    "nothing": ([], b"", End(b"")),
    "nothing yet": ([PLAIN], b"", End(b"", outstanding=1, ended="closed without an answer")),
}

BAD: dict[str, tuple[list[Kind], bytes, str]] = {
    "garbage": ([PLAIN], b"SSH-2.0-x\r\n", "no HTTP/1 response"),
    "HTTP/2": ([PLAIN], b"\0\0\x0c\x04\0\0\0\0\0", "no HTTP/1 response"),
    "version 3": ([PLAIN], SHORT.replace(b"1.1", b"3.0"), "no HTTP/1 response"),
    "version 2.1": ([PLAIN], SHORT.replace(b"1.1", b"2.1"), "no HTTP/1 response"),
    "version 0.9": ([PLAIN], b"<html>", "no HTTP/1 response"),
    "empty line": ([PLAIN], b"\r\n" + SHORT, "no HTTP/1 response"),
    "version 1.2": ([PLAIN], SHORT.replace(b"1.1", b"1.2"), "malformed response head"),
    "two digits": ([PLAIN], SHORT.replace(b"200", b"20"), "malformed response head"),
    "four digits": ([PLAIN], SHORT.replace(b"200", b"2000"), "malformed response head"),
    "status 099": ([PLAIN], SHORT.replace(b"200", b"099"), "malformed response head"),
    "no colon": ([PLAIN], response(b"A\r\n"), "malformed response head"),
    "folded first": (
        [PLAIN],
        response(b" A: b\r\nContent-Length: 0\r\n"),
        "malformed response head",
    ),
    "folded length": (
        [PLAIN],
        response(b"Content-Length:\r\n 0\r\n"),
        "malformed response head",
    ),
    "bare CR": ([PLAIN], response(b"A: b\rC: d\r\nContent-Length: 0\r\n"), "bare CR in the head"),
    "NUL": ([PLAIN], response(b"A: \0\r\nContent-Length: 0\r\n"), "control byte in the head"),
    "length and another coding": (
        [PLAIN],
        response(b"Content-Length: 5\r\nTransfer-Encoding: gzip\r\n", b"hello"),
        "both Content-Length and Transfer-Encoding",
    ),
    "two lengths": (
        [PLAIN],
        response(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello"),
        "Content-Length that contradicts itself",
    ),
    "two lengths, the first usual": (
        [PLAIN],
        response(b"Content-Length: 5\r\nA: b\r\ncontent-length: 6\r\n", b"hello"),
        "Content-Length that contradicts itself",
    ),
    **{
        f"length {value.decode('latin-1')!r}": (
            [PLAIN],
            response(b"Content-Length: " + value + b"\r\n", b"hello"),
            "malformed Content-Length",
        )
        for value in (
            b"",
            b"+5",
            b"-5",
            b"5,6",
            b"5,",
            b"0x5",
            b"5 5",
            b"9223372036854775808",
            b"\xb2",
        )
    },
    **{
        f"coding {value.decode()!r}": (
            [PLAIN],
            response(b"Transfer-Encoding: " + value + b"\r\n", b"0\r\n\r\n"),
            "Transfer-Encoding that cannot be followed",
        )
        for value in (b"gzip", b"gzip, chunked", b"chunked, chunked", b"xchunked", b"identity")
    },
    "two codings": (
        [PLAIN],
        response(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        "Transfer-Encoding that cannot be followed",
    ),
    "101 unasked": ([PLAIN], b"HTTP/1.1 101 x\r\n\r\n", "101 that nobody asked for"),
    "101 to HEAD": ([HEAD], b"HTTP/1.1 101 x\r\n\r\n", "101 that nobody asked for"),
    "101 to CONNECT": ([CONNECT], b"HTTP/1.1 101 x\r\n\r\n", "101 that nobody asked for"),
    "unasked": ([], SHORT, "response that nobody asked for"),
    "head too large": ([PLAIN], OK + b"A: b\r\n" * 11000, "response head too large"),
}
"""None of these bytes are let through."""

BAD_BEHIND: dict[str, tuple[list[Kind], bytes, bytes, str]] = {
    "second unasked": ([PLAIN], SHORT, SHORT, "response that nobody asked for"),
    "body of a 204": (
        [PLAIN, PLAIN],
        b"HTTP/1.1 204 No\r\n\r\n",
        b"hello",
        "no HTTP/1 response",
    ),
    "body of a HEAD": ([HEAD, PLAIN], SHORT[:-5], b"hello", "no HTTP/1 response"),
    "body too long": ([PLAIN, PLAIN], SHORT, b"more", "no HTTP/1 response"),
    "second garbage": ([PLAIN, PLAIN], SHORT, b"\0", "no HTTP/1 response"),
    "behind the last": (
        [PLAIN, PLAIN],
        response(b"Connection: close\r\nContent-Length: 0\r\n"),
        SHORT,
        "response that nobody asked for",
    ),
    "bad chunk": ([PLAIN], chunked(b"5\r\nhello\r\n"), b"x\r\n", "malformed chunk"),
    "bad chunk size": ([PLAIN], chunked(b""), b" 5\r\nhello\r\n0\r\n\r\n", "malformed chunk"),
    "chunk too large": ([PLAIN], chunked(b""), b"8000000000000000\r\n", "malformed chunk"),
    "seventeen digits": ([PLAIN], chunked(b""), b"00000000000000001\r\nx\r\n", "malformed chunk"),
    "bad chunk end": ([PLAIN], chunked(b"5\r\nhello"), b"!0\r\n\r\n", "malformed chunk"),
    "bad trailer": ([PLAIN], chunked(b""), b"0\r\nA\r\n\r\n", "malformed trailer field"),
}
"""The first bytes are let through, the others are not."""

good = pytest.mark.parametrize(("kinds", "raw", "end"), GOOD.values(), ids=GOOD.keys())
bad = pytest.mark.parametrize(("kinds", "raw", "why"), BAD.values(), ids=BAD.keys())


@good
def test_good_responses_pass(kinds: list[Kind], raw: bytes, end: End) -> None:
    assert feed(kinds, [raw]) == end


@good
def test_cuts_change_nothing(kinds: list[Kind], raw: bytes, end: End) -> None:
    for parts in every_cut(raw):
        assert feed(kinds, parts) == end
        assert feed(kinds, parts, splice=True) == end


@bad
def test_bad_responses_are_held_back(kinds: list[Kind], raw: bytes, why: str) -> None:
    end = feed(kinds, [raw])
    assert (end.out, end.error, end.began, end.switched) == (b"", why, False, False)
    assert end.outstanding == len(kinds)


@bad
def test_cuts_do_not_change_an_error(kinds: list[Kind], raw: bytes, why: str) -> None:
    for parts in every_cut(raw):
        end = feed(kinds, parts)
        assert (end.out, end.error, end.began) == (b"", why, False)


@bad
def test_bad_responses_behind_an_interim_one(kinds: list[Kind], raw: bytes, why: str) -> None:
    """An interim response does not make it too late for a 502."""
    end = feed(kinds or [PLAIN], [CONTINUE + (raw if kinds else b"x" + raw)])
    why = why if kinds else "no HTTP/1 response"
    assert (end.out, end.error, end.began) == (CONTINUE, why, False)


@pytest.mark.parametrize(
    ("kinds", "out", "rest", "why"), BAD_BEHIND.values(), ids=BAD_BEHIND.keys()
)
def test_what_was_good_is_let_through(kinds: list[Kind], out: bytes, rest: bytes, why: str) -> None:
    for parts in [[out + rest], [out, rest], *every_cut(out + rest)]:
        end = feed(kinds, parts)
        assert (end.out, end.error) == (out, why)


def test_interim_answers_are_bounded() -> None:
    stream = ResponseStream()
    stream.expect(PLAIN)
    stream.expect(PLAIN)
    for _ in range(2):
        stream.receive(CONTINUE * MAX_INTERIM + SHORT)
    assert (stream.error, stream.outstanding) == ("", 0)
    stream.expect(PLAIN)
    (piece,) = stream.receive(CONTINUE * (MAX_INTERIM + 2))
    assert piece == CONTINUE * MAX_INTERIM
    assert stream.error == "too many interim responses"
    assert not stream.began


def test_a_call_ends_when_its_time_is_over() -> None:
    stream = ResponseStream(hurry())
    raw = CONTINUE * 2 + chunked(b"80;a\r\n" + b"x" * 128 + b"\r\n1\r\nx\r\n0\r\n\r\n") + SHORT
    stream.expect(PLAIN)
    stream.expect(PLAIN)
    out = [b"".join(map(bytes, stream.receive(raw)))]
    while stream.more:
        assert not stream.passing
        out.append(b"".join(map(bytes, stream.receive(b""))))
    assert b"".join(out) == raw
    assert len(out) == 6
    assert stream.outstanding == 0


def test_a_larger_head_by_option() -> None:
    raw = response(b"A: " + b"x" * 100_000 + b"\r\nContent-Length: 0\r\n")
    for max_head, error in ((0, "response head too large"), (128 * 1024, "")):
        stream = ResponseStream(max_head=max_head)
        stream.expect(PLAIN)
        stream.receive(raw[:90_000])
        stream.receive(raw[90_000:])
        assert stream.error == error


def test_each_head_is_searched_from_its_begin() -> None:
    """What was searched of the one before, in pieces, says nothing of the next."""
    stream = ResponseStream()
    for _ in range(2):
        stream.expect(PLAIN)
    stream.receive(OK + b"Server: something long\r\n")
    stream.receive(b"Content-Length: 0\r\n\r\n")
    assert not stream.error
    stream.receive(OK + b"A: \0")
    assert stream.error


def test_nothing_follows_an_error() -> None:
    stream = ResponseStream()
    stream.expect(PLAIN)
    assert stream.receive(b"x") == []
    assert stream.receive(SHORT) == []
    assert stream.error == "no HTTP/1 response"


@pytest.mark.parametrize("raw", [SHORT, SHORT[:-2], chunked(b"1\r\nx\r\n0\r\n\r\n")])
def test_what_is_let_through_whole_is_not_copied(raw: bytes) -> None:
    stream = ResponseStream()
    stream.expect(PLAIN)
    (piece,) = stream.receive(raw)
    assert piece is raw


def test_a_long_body_may_go_past_the_stream() -> None:
    stream = ResponseStream()
    stream.expect(PLAIN)
    stream.receive(OK + b"Content-Length: 1000000\r\n\r\nab")
    assert stream.passing == 999998
    assert stream.began
    stream.passed(999990)
    assert stream.passing == 8
    stream.passed(8)
    assert (stream.passing, stream.outstanding, stream.began) == (0, 0, False)


def test_a_body_until_the_end_goes_past_the_stream() -> None:
    stream = ResponseStream()
    stream.expect(PLAIN)
    stream.receive(OK + b"\r\n")
    stream.passed(10**9)
    assert stream.passing == UNTIL_EOF
    assert stream.ended() == ""
    assert stream.outstanding == 0


def test_nothing_is_expected_behind_the_last_response() -> None:
    """RFC 9112, 9.6: a request that crosses `Connection: close` is not answered any more."""
    stream = ResponseStream()
    stream.expect(PLAIN)
    stream.receive(OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n")
    stream.expect(PLAIN)
    assert stream.outstanding == 0
    assert stream.ended() == ""


def test_an_answered_upgrade_is_told_at_its_head() -> None:
    stream = ResponseStream()
    stream.expect(UPGRADE)
    stream.receive(CONTINUE)
    assert not stream.answered_upgrade
    stream.receive(SHORT[:-1])
    assert stream.answered_upgrade
    assert stream.outstanding == 1
