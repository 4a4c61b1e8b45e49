"""What a target's first answer says, as tables: real answers of servers, and of their clients."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from v6fwd.client_ip import first_answer
from v6fwd.client_ip.first_answer import (
    AT_ONCE,
    MUTE,
    MUTE_STUN,
    QUICK,
    Answer,
    FirstAnswer,
    Sent,
    Words,
    words_of,
)
from v6fwd.model.patterns import Lazy

SERVED, ENDED, ERROR, SILENT, UNCLEAR = Answer
NOTHING, HEADER, FIELD = Sent.NOTHING, Sent.HEADER, Sent.FIELD
GET = b"GET /one HTTP/1.1\r\nHost: x\r\n\r\n"
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
EHLO = b"EHLO mail.example\r\n"
RUBBISH = b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01"
"""What scanners for remote desktops send."""
POSTFIX = b"220 mail.example ESMTP Postfix\r\n"
EXIM = b"220 mail.example ESMTP Exim 4.96\r\n"
DOVECOT = b"* OK [CAPABILITY IMAP4rev1 ID ENABLE IDLE] Dovecot (Debian) ready.\r\n"
MYSQL = b"\x11\0\0\0\x0a10.11-MariaDB\0\0\0"
LOGIN = b"\x27\0\0\1\1\x82\0\0\0\0\0\1\x21" + bytes(23) + b"probe\0\0"
BINDING = b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12)
STREAM = b"<stream:stream to='chat.example' xmlns='jabber:client'>"
LOOKUP = b":irc.example NOTICE * :*** Looking up your hostname...\r\n"
OK = b"HTTP/1.1 200 OK\r\nDate: Sat, 28 Nov 2026 20:23:25 GMT\r\n"
BAD = b"HTTP/1.1 400 Bad Request\r\nDate: Sat, 28 Nov 2026 20:23:32 GMT\r\n"
ALERT = b"\x15\x03\x01\x00\x02\x02"
PYTHON = b'<!DOCTYPE HTML>\n<html lang="en"><title>Error response</title><p>Error code: 400</p>'


@pytest.mark.parametrize(
    ("data", "port", "words"),
    [
        (b"", 80, Words.NONE),
        (GET, 80, Words.SOUND),
        (GET, 443, Words.ODD),  # plain text for a TLS server
        (b"GET / HTTP/1.0\r\n\r\n", 80, Words.SOUND),
        (b"GET / HTTP/1.1\r\n\r\n", 80, Words.ODD),  # without a Host
        (b"GET / HTTP/1.1\r\nCookie: " + bytes(100), 80, Words.SOUND),  # the rest is on its way
        (b"GET /cgi-bin/.%2e/.%2e/bin/sh HTTP/1.1\r\nHost: x\r\n\r\n", 80, Words.ODD),
        (b"GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 80, Words.ODD),
        (b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", 80, Words.ODD),
        (b"hello", 80, Words.TEXT),
        (b"MAIL FROM:<a@b>\r\n", 25, Words.TEXT),
        (b"hello", 443, Words.ODD),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 80, Words.ODD),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 80, Words.ODD),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 80, Words.ODD),
        (HELLO, 443, Words.SOUND),
        (HELLO, 9443, Words.SOUND),
        (HELLO, 80, Words.ODD),
        (HELLO, 40991, Words.ODD),
        (EHLO, 25, Words.SOUND),
        (b"a1 CAPABILITY\r\n", 143, Words.SOUND),
        (b"*1\r\n$4\r\nPING\r\n", 6379, Words.SOUND),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", 5432, Words.SOUND),
        (b"NICK a\r\nUSER a 0 * :a\r\n", 6667, Words.SOUND),
        (b"CAP LS 302\r\n", 6667, Words.SOUND),
        (b"<?xml version='1.0'?>", 5222, Words.SOUND),
        (STREAM, 5222, Words.SOUND),
        (BINDING, 3478, Words.SOUND),
        (LOGIN, 3306, Words.SOUND),
        (b"\x20\0\0\1" + bytes(32), 3306, Words.SOUND),  # SSLRequest
        (b"\x20\0\0\1" + b"x" * 32, 3306, Words.ODD),
        (RUBBISH, 80, Words.ODD),
        (b"\r\n", 80, Words.ODD),
        (b"PROXY TCP6 ::1 ::1 1 2\r\n", 80, Words.TEXT),
    ],
)
def test_what_a_client_says(data: bytes, port: int, words: Words) -> None:
    assert words_of(data, port) is words


def test_the_ports_on_which_a_client_speaks_tls() -> None:
    """As IANA has them below 1024, and what many choose above."""
    sound = [port for port in range(10_000) if words_of(HELLO, port) is Words.SOUND]
    assert sound[:7] == [443, 465, 636, 853, 990, 993, 995]
    assert sound[7:] == [thousand * 1000 + 443 for thousand in range(1, 10)]


def test_the_ports_on_which_a_server_speaks_first() -> None:
    """One that ends at once there, without a greeting, misses the header."""
    ended = [
        port
        for port in range(10_000)
        if FirstAnswer(NOTHING, port, b"").target_ended(0.0, client_ended=False) is ENDED
    ]
    assert ended == [21, 25, 110, 143, 587, 2525, 3306, 4190]


@pytest.mark.parametrize(
    ("sent", "port", "said", "answer", "verdict"),
    [
        # a server that does not know the header
        (HEADER, 80, GET, BAD, ENDED),
        (HEADER, 80, b"", BAD, ENDED),
        (HEADER, 80, GET, b"HTTP/1.0 400 Bad Request\r\n", ENDED),  # lighttpd
        (HEADER, 80, GET, b"HTTP/1.1 501 Not Implemented\r\n", ENDED),
        (HEADER, 80, GET, PYTHON, ENDED),
        (HEADER, 443, HELLO, BAD, ENDED),  # nginx: plain HTTP to a TLS port
        (HEADER, 443, HELLO, ALERT + b"\x46", ERROR),
        (HEADER, 443, HELLO, ALERT + b"\x32", ERROR),  # decode error
        (HEADER, 443, HELLO, ALERT + b"\x0a", ERROR),  # unexpected message
        (HEADER, 443, HELLO, ALERT + b"\x0b", UNCLEAR),
        (HEADER, 6379, b"", b"-ERR unknown command 'PROXY', with args beginning with:", ERROR),
        (HEADER, 25, b"", POSTFIX + b"500 5.5.2 Error: command not recognized\r\n", ERROR),
        (HEADER, 25, EHLO, POSTFIX + b"500 5.5.2 Error: bad syntax\r\n", ERROR),
        (HEADER, 21, b"", b"220 (vsFTPd 3.0.3)\r\n530 Please login with USER and PASS.\r\n", ERROR),
        (HEADER, 143, b"", DOVECOT + b"PROXY BAD Error in IMAP command received\r\n", ERROR),
        (HEADER, 143, b"", DOVECOT + b"* BAD Error in IMAP command received\r\n", ERROR),
        (HEADER, 110, b"", b"+OK Dovecot ready.\r\n-ERR Unknown command.\r\n", ERROR),
        (HEADER, 3306, b"", MYSQL + b"\x34\0\0\1\xff\x6a\4#HY000Proxy header is not acc", ERROR),
        (HEADER, 3306, LOGIN, MYSQL + b"\x19\0\0\1\xff\x13\4#08S01Bad handshake", ERROR),
        (HEADER, 3306, b"", MYSQL + b"\x21\0\0\2\xff\x84\4#08S01Got packets out", ERROR),
        (HEADER, 5222, STREAM, STREAM + b"<stream:error><not-well-formed xmlns='x'/>", ERROR),
        (HEADER, 6667, b"", b"ERROR :Closing link: (1@172.17.42.1) [Client exited]\r\n", ERROR),
        (HEADER, 6667, b"NICK a\r\n", LOOKUP + b"ERROR :Closing Link: (Quit: )\r\n", ERROR),
        (HEADER, 22, b"", b"SSH-2.0-OpenSSH_9.2p1\r\nInvalid SSH identification string.", ERROR),
        # a server that wants one, and says so
        (NOTHING, 25, b"", b"421 4.3.0 mail.example Server local error\r\n", ERROR),
        (NOTHING, 25, b"", b"421 4.3.2 No system resources\r\n", ERROR),
        (NOTHING, 25, EHLO, EXIM + b"503 Command refused, required Proxy negotiation\r\n", ERROR),
        # an HTTP mode before what is no HTTP server
        (FIELD, 443, GET, BAD, ERROR),
        (FIELD, 80, GET, BAD, ERROR),
        # a healthy server
        (HEADER, 80, GET, OK, SERVED),
        (HEADER, 80, GET, b"HTTP/1.1 404 Not Found\r\n", SERVED),
        (HEADER, 80, GET, b"HTTP/1.1 503 Service Unavailable\r\n", SERVED),
        (HEADER, 443, HELLO, b"\x16\x03\x03\x00\x7a\x02", SERVED),
        (HEADER, 143, b"a CAPABILITY\r\n", DOVECOT + b"* CAPABILITY IMAP4rev1\r\n", SERVED),
        (HEADER, 25, EHLO, POSTFIX + b"250-mail.example\r\n", SERVED),
        (HEADER, 6379, b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n", SERVED),
        (HEADER, 3306, LOGIN, MYSQL + b"\7\0\0\2\0\0\0\2\0\0\0", SERVED),
        (HEADER, 3306, LOGIN, MYSQL + b"\x48\0\0\2\xff\x15\4#28000Access denied for", SERVED),
        (HEADER, 3306, LOGIN, MYSQL + b"\x48\0\0\1\xff\x6a\4#HY000Host '2001:db8::1'", SERVED),
        (HEADER, 5222, STREAM, STREAM + b"<stream:features>", SERVED),
        (HEADER, 5222, STREAM, STREAM + b"<stream:error><host-unknown xmlns='x'/>", SERVED),
        (HEADER, 6667, b"NICK a\r\n", LOOKUP + b":irc.example 001 a :Welcome\r\n", SERVED),
        (HEADER, 6667, b"NICK a\r\n", b"ERROR :Closing link: (x) [K-lined: spam]\r\n", SERVED),
        (NOTHING, 3306, LOGIN, MYSQL + b"\7\0\0\2\0\0\0\2\0\0\0", SERVED),
        (NOTHING, 6667, b"NICK a\r\n", b"ERROR :Closing link: (x) [Quit]\r\n", SERVED),
        (NOTHING, 80, GET, OK, SERVED),
        (NOTHING, 80, GET, BAD, SERVED),  # it understands HTTP
        (NOTHING, 80, RUBBISH, BAD, SERVED),
        (FIELD, 80, GET, OK, SERVED),
        # a healthy server and its clients
        (HEADER, 80, RUBBISH, BAD, UNCLEAR),
        (HEADER, 80, b"hello", BAD, UNCLEAR),
        (HEADER, 80, HELLO, BAD, UNCLEAR),  # TLS for a server of plain HTTP
        (HEADER, 443, GET, BAD, UNCLEAR),  # and the other way round
        (HEADER, 443, RUBBISH, ALERT + b"\x0a", UNCLEAR),
        (HEADER, 443, HELLO, ALERT + b"\x28", UNCLEAR),  # handshake failure: no cipher in common
        (HEADER, 80, b"", b"HTTP/1.1 408 Request Time-out\r\n", UNCLEAR),
        (HEADER, 25, b"", b"554 5.7.1 Service unavailable; client blocked\r\n", UNCLEAR),
        (HEADER, 25, RUBBISH, POSTFIX + b"500 5.5.2 Error: bad syntax\r\n", UNCLEAR),
        (NOTHING, 25, b"", b"421 4.7.0 Error: too many connections from 172.17.42.1\r\n", UNCLEAR),
    ],
)  # fmt: skip
def test_an_answer(sent: Sent, port: int, said: bytes, answer: bytes, verdict: Answer) -> None:
    assert FirstAnswer(sent, port, said).target_said(answer) is verdict


@pytest.mark.parametrize(
    ("greeting", "then", "verdict"),
    [
        (POSTFIX, b"500 5.5.2 Error: command not recognized\r\n", ERROR),
        (POSTFIX, b"250-mail.example\r\n", SERVED),
        (b"220-mail.example\r\n", b"220 ready\r\n250 mail.example\r\n", SERVED),
        (b"* OK Waiting for authentication process to respond..\r\n",
         DOVECOT + b"PROXY BAD Error in IMAP command\r\n", ERROR),
        (b"+OK ready\r\n", b"+OK\r\nCAPA\r\n", SERVED),
        (MYSQL, b"\x34\0\0\1\xff\x6a\4#HY000Proxy header is not accepted from", ERROR),
        (STREAM, b"<stream:error><not-well-formed xmlns='x'/>", ERROR),
        (b"<?xml version='1.0'?>", STREAM + b"<stream:error><bad-format/>", ERROR),
        (LOOKUP, LOOKUP + b"ERROR :Closing link: (x) [Client exited]\r\n", ERROR),
    ],
)  # fmt: skip
def test_a_greeting_in_a_segment_of_its_own(greeting: bytes, then: bytes, verdict: Answer) -> None:
    answer = FirstAnswer(HEADER, 25, b"")
    assert answer.target_said(greeting) is None
    answer.client_said(EHLO)
    assert answer.target_said(then) is verdict


@pytest.mark.parametrize(
    ("sent", "port", "said", "seconds", "verdict"),
    [
        (HEADER, 80, GET, 0.1, ENDED),
        (HEADER, 5432, b"", 0.1, ENDED),
        (HEADER, 80, b"", AT_ONCE + 1, UNCLEAR),  # its time limit for a request
        (NOTHING, 80, GET, 0.1, ENDED),  # Apache, nginx, HAProxy
        (NOTHING, 80, b"", 0.1, UNCLEAR),
        (NOTHING, 80, b"", 5.1, UNCLEAR),  # a healthy server that ends idle connections
        (NOTHING, 143, b"", 3.1, ENDED),  # Dovecot, which should have greeted
        (NOTHING, 80, RUBBISH, 0.1, UNCLEAR),
        (HEADER, 7, b"hello", 0.1, ENDED),
        (HEADER, 443, b"hello", 0.1, UNCLEAR),  # plain text for a TLS server
        (NOTHING, 80, GET, QUICK + 1, UNCLEAR),
        (FIELD, 80, GET, 0.1, ENDED),
    ],
)
def test_an_end_without_an_answer(
    sent: Sent, port: int, said: bytes, seconds: float, verdict: Answer
) -> None:
    assert FirstAnswer(sent, port, said).target_ended(seconds, client_ended=False) is verdict
    assert FirstAnswer(sent, port, said).target_ended(seconds, client_ended=True) is UNCLEAR


def test_an_end_behind_a_greeting() -> None:
    """As of a daytime server: that was all it had to say."""
    answer = FirstAnswer(HEADER, 25, b"")
    assert answer.target_said(POSTFIX) is None
    assert answer.target_ended(0.1, client_ended=False) is UNCLEAR


def test_only_the_first_words_count() -> None:
    answer = FirstAnswer(HEADER, 80, b"")
    answer.client_said(RUBBISH)
    answer.client_said(GET)
    assert answer.target_said(BAD) is UNCLEAR


@pytest.mark.parametrize(
    ("sent", "port", "said", "seconds", "verdict"),
    [
        (NOTHING, 25, b"", MUTE, SILENT),
        (NOTHING, 25, b"", MUTE - 1, UNCLEAR),  # a mail server that makes strangers wait
        (NOTHING, 25, RUBBISH, MUTE, UNCLEAR),
        (NOTHING, 80, b"", MUTE, UNCLEAR),  # a browser's connection that it did not use
        (NOTHING, 80, GET, MUTE, UNCLEAR),  # a page that takes long
        (HEADER, 25, b"", MUTE, SILENT),
        (HEADER, 3478, BINDING, MUTE_STUN, SILENT),
        (HEADER, 3478, BINDING, MUTE_STUN - 1, UNCLEAR),
        (HEADER, 3478, GET, MUTE_STUN, UNCLEAR),
        (HEADER, 3478, b"", MUTE_STUN, UNCLEAR),
        (NOTHING, 3478, BINDING, MUTE_STUN, SILENT),
        (FIELD, 25, GET, MUTE, UNCLEAR),
    ],
)
def test_no_answer(sent: Sent, port: int, said: bytes, seconds: float, verdict: Answer) -> None:
    assert FirstAnswer(sent, port, said).unanswered(seconds) is verdict


def test_no_answer_to_what_a_client_says_later() -> None:
    answer = FirstAnswer(HEADER, 3478, b"")
    answer.client_said(BINDING)
    assert answer.unanswered(MUTE_STUN) is SILENT


def test_a_greeting_is_an_answer() -> None:
    answer = FirstAnswer(NOTHING, 25, b"")
    answer.target_said(POSTFIX)
    assert answer.unanswered(MUTE) is UNCLEAR


def test_a_target_that_ends_when_its_client_has_left_did_not_answer() -> None:
    answer = FirstAnswer(HEADER, 3478, BINDING)
    assert answer.target_ended(MUTE_STUN, client_ended=True) is SILENT
    assert answer.target_ended(MUTE_STUN - 1, client_ended=True) is UNCLEAR


_REQUEST_RE = re.compile(rb"[A-Z]{3,16} (/[!-~]*) HTTP/1\.([01])\r\n")
_PARTS = [b"GET", b"get", b"OPTIONS", b"AB", b" ", b"  ", b"/", b"/a%2e", b"/\xff", b"/a..b", b"x"]
_PARTS += [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2", b"\r\n", b"\n", b"Host: a", b"hOST:", b"\r\n\r\n"]


def _as_patterns_do(data: bytes) -> Words | None:
    """What an HTTP request on port 80 is; None: it is none."""
    request = _REQUEST_RE.match(data)
    if request is None:
        return None
    has_host = request[2] == b"0" or b"\r\n\r\n" not in data
    has_host = has_host or bool(re.search(rb"(?i)\r\nhost:", data))
    hides = re.search(rb"(?i)\.\.|%2e|%0|%5c", request[1])
    return Words.SOUND if has_host and not hides else Words.ODD


@given(st.lists(st.sampled_from(_PARTS), max_size=10).map(b"".join))
@example(b"GET /a HTTP/1.1\r\nhOST: a\r\n\r\n")
@example(b"GET /%2E HTTP/1.1\r\n")
@example(b"GET / HTTP/1.0\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nx\r\n\r\n")
def test_a_request_is_read_as_patterns_do(data: bytes) -> None:
    expected = _as_patterns_do(data)
    if expected is not None:
        assert words_of(data, 80) is expected
    else:
        assert first_answer._path_of(data) is None


def test_a_parent_can_have_the_patterns_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = Lazy(b"a")
    monkeypatch.setattr(first_answer, "_IRC_RE", lazy)
    first_answer.compile_patterns()
    monkeypatch.delattr(re, "compile")
    assert lazy.match(b"a")
