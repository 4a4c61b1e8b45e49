"""What answers mean: tables."""

from __future__ import annotations

import pytest

from v6fwd.probe.judge import (
    End,
    Heard,
    Result,
    Verdict,
    client_shown,
    judge,
    legible,
    mysql_packet,
    printable,
    unless_passed_over,
)
from v6fwd.probe.openings import DNS_ID, greeting_of

ACCEPTED, REFUSED, SILENT, UNCLEAR = Result
MYSQL = b"\x11\0\0\0\x0a10.11-MariaDB\0\0\0"
XMPP = b"<?xml version='1.0'?><stream:stream id='1' xmlns='jabber:client'>"
STUN = bytes.fromhex(
    "0101001c2112a4427636667764 2d70726f62652e002000140002f52320010db800000000000000000000c0de"
)
"""Its address is coded below."""
STUN = STUN[:28] + bytes(a ^ b for a, b in zip(STUN[28:], STUN[4:20], strict=True))


def mysql_error(number: int, text: str) -> bytes:
    """An ERR packet."""
    payload = b"\xff" + number.to_bytes(2, "little") + b"#HY000" + text.encode()
    return len(payload).to_bytes(3, "little") + b"\0" + payload


DNS_ANSWER = DNS_ID + b"\x80\x05" + bytes(8)


@pytest.mark.parametrize(
    ("protocol", "heard", "result", "answer"),
    [
        ("http", Heard(b"HTTP/1.1 200 OK\r\n\r\n"), ACCEPTED, "HTTP/1.1 200 OK"),
        ("http", Heard(b"HTTP/1.1 404 Not Found\r\n"), ACCEPTED, "HTTP/1.1 404 Not Found"),
        ("http", Heard(b"HTTP/1.1 400 Bad Request\r\n"), REFUSED, "HTTP/1.1 400 Bad Request"),
        ("http", Heard(end=End.CLOSED), REFUSED, "closed"),
        ("http", Heard(end=End.RESET), REFUSED, "reset"),
        ("http", Heard(), SILENT, "no answer"),
        ("http", Heard(b"\x15\x03\x01\x00\x02\x02F"), UNCLEAR, "......F"),
        ("tls", Heard(b"\x16\x03\x03\x00\x7a\x02\x00"), ACCEPTED, "TLS ServerHello"),
        ("tls", Heard(b"\x15\x03\x01\x00\x02\x02\x46"), REFUSED, "TLS alert 70"),
        ("tls", Heard(b"HTTP/1.1 400 Bad\r\n"), REFUSED, "HTTP/1.1 400 Bad"),
        ("dns", Heard(DNS_ANSWER), ACCEPTED, "DNS answer, REFUSED"),
        ("dns", Heard(b"\0\x0c" + DNS_ANSWER), ACCEPTED, "DNS answer, REFUSED"),
        # a plain server takes the signature for a query: its ID is CR LF
        ("dns", Heard(b"\r\n\x8d\x84" + bytes(8)), REFUSED, "DNS answer to the header itself"),
        ("dns", Heard(b"\0"), UNCLEAR, "."),
        ("postgresql", Heard(b"N"), ACCEPTED, "SSLRequest answered"),
        ("postgresql", Heard(b"E..."), REFUSED, "E..."),
        ("smtp", Heard(b"250 ok\r\n", b"220 hi\r\n"), ACCEPTED, "250 ok"),
        ("smtp", Heard(b"500 what?\r\n250 ok\r\n", b"220 hi\r\n"), REFUSED, "500 what?"),
        ("smtp", Heard(b"221 bye\r\n", b"220 hi\r\n"), REFUSED, "221 bye"),
        ("smtp", Heard(b"", b"554 go\r\n", End.CLOSED), REFUSED, "554 go"),
        ("smtp", Heard(b"", b"220 hi\r\n", End.CLOSED), REFUSED, "greeting, then closed"),
        ("smtp", Heard(b"", b"220 hi\r\n"), UNCLEAR, "220 hi"),
        ("ftp", Heard(b"211-Features\r\n211 End\r\n", b"220 hi\r\n"), ACCEPTED, "211-Features"),
        ("imap", Heard(b"* CAPABILITY x\r\nv6 OK\r\n", b"* OK\r\n"), ACCEPTED, "* CAPABILITY x"),
        ("imap", Heard(b"PROXY BAD\r\nv6 OK\r\n", b"* OK\r\n"), REFUSED, "PROXY BAD"),
        ("pop3", Heard(b"+OK\r\n.\r\n", b"+OK\r\n"), ACCEPTED, "+OK"),
        ("pop3", Heard(b"-ERR\r\n+OK\r\n", b"+OK\r\n"), REFUSED, "-ERR"),
        ("ssh", Heard(b"\0\0\x03\x94\x07\x14", b"SSH-2.0-x\r\n"), ACCEPTED, "key exchange begun"),
        ("ssh", Heard(b"Invalid SSH\r\n", b"SSH-2.0-x\r\n"), REFUSED, "Invalid SSH"),
        ("mysql", Heard(b"\x07\0\0\x02\0\0\0\x02\0\0\0", MYSQL), ACCEPTED, "login answered"),
        ("mysql", Heard(b"\x2c\0\0\x02\xfemysql_native\0", MYSQL), ACCEPTED, "login answered"),
        (
            "mysql",
            Heard(mysql_error(1045, "Access denied for user 'x'@'2001:db8::c0de'"), MYSQL),
            ACCEPTED,
            "Access denied for user 'x'@'2001:db8::c0de'",
        ),
        (
            "mysql",
            Heard(mysql_error(1130, "Proxy header is not accepted from 172.17.42.1"), MYSQL),
            REFUSED,
            "Proxy header is not accepted from 172.17.42.1",
        ),
        (
            "mysql",
            Heard(mysql_error(1156, "Got packets out of order"), MYSQL),
            REFUSED,
            "Got packets out of order",
        ),
        (
            "mysql",
            Heard(greeting=mysql_error(1129, "Host 'x' is blocked")),
            REFUSED,
            "Host 'x' is blocked",
        ),
        ("mysql", Heard(greeting=MYSQL), UNCLEAR, "MySQL's greeting"),
        ("mysql", Heard(greeting=MYSQL, end=End.RESET), REFUSED, "greeting, then reset"),
        (
            "irc",
            Heard(b":irc.example 451 * PING :You have not registered.\r\nERROR :x\r\n"),
            ACCEPTED,
            ":irc.example 451 * PING :You have not registered.",
        ),
        (
            "irc",
            Heard(b":irc.example PONG irc.example v6fwd\r\n"),
            ACCEPTED,
            ":irc.example PONG irc.example v6fwd",
        ),
        (
            "irc",
            Heard(b"ERROR :Closing link: (x@172.17.42.1) [Client exited]\r\n"),
            REFUSED,
            "ERROR :Closing link: (x@172.17.42.1) [Client exited]",
        ),
        (
            "xmpp",
            Heard(XMPP + b"<stream:features><x/></stream:features>"),
            ACCEPTED,
            "XMPP: stream features",
        ),
        (
            "xmpp",
            Heard(XMPP + b"<stream:error><host-unknown xmlns='x'/></stream:error>"),
            ACCEPTED,
            "XMPP: host-unknown",
        ),
        (
            "xmpp",
            Heard(XMPP + b"<stream:error><not-well-formed xmlns='x'/></stream:error>"),
            REFUSED,
            "XMPP: not-well-formed",
        ),
        ("xmpp", Heard(b"HTTP/1.1 400 Bad\r\n"), UNCLEAR, "HTTP/1.1 400 Bad"),
        ("stun", Heard(STUN), ACCEPTED, "STUN: you are 2001:db8::c0de"),
        ("stun", Heard(STUN[:20]), ACCEPTED, "STUN response"),
        ("stun", Heard(b"\x01\x01\0\0" + bytes(16)), UNCLEAR, "...................."),
        ("unknown", Heard(b"hello\n"), UNCLEAR, "hello"),
    ],
)
def test_an_answer(protocol: str, heard: Heard, result: Result, answer: str) -> None:
    verdict = judge(protocol, heard)
    assert (verdict.result, verdict.answer) == (result, answer)


@pytest.mark.parametrize(
    ("page", "mark", "seen"),
    [
        (b"you are 2001:db8::c0de", "", True),
        (b"you are 2001:db8::c0de, sent mark", "mark", None),  # it shows all that it gets
        (b"you are [172.17.42.1]", "", False),
        (b"you are 172.17.42.12 or 2001:db8::c0de1", "", None),
        (b"no word of it", "", None),
    ],
)
def test_whether_an_answer_shows_the_client(page: bytes, mark: str, seen: bool | None) -> None:
    assert client_shown(Heard(page), "2001:db8::c0de", "172.17.42.1", mark) is seen


@pytest.mark.parametrize(
    ("data", "port", "name"),
    [
        (MYSQL, 3307, "mysql"),
        (mysql_error(1129, "Host 'x' is blocked"), 3306, "mysql"),
        (b":irc.example NOTICE * :*** Looking up your hostname...\r\n", 7000, "irc"),
        (b"220 mail ESMTP\r\n", 25, "smtp"),
        (b"220 (vsFTPd 3.0.3)\r\n", 2121, "ftp"),
        (b"220 ready\r\n", 21, "ftp"),
        (b"* OK ready\r\n", 143, "imap"),
        (b"+OK ready\r\n", 110, "pop3"),
        (b"SSH-2.0-OpenSSH\r\n", 22, "ssh"),
        (b"HTTP/1.1 400 Bad Request\r\n", 80, None),
    ],
)
def test_greetings(data: bytes, port: int, name: str | None) -> None:
    assert greeting_of(data, port) == name


def test_nothing_reaches_the_terminal_raw() -> None:
    assert printable(b"\x1b[31mred\x07\r\nready: 1 forwards") == ".[31mred."


def test_what_a_stun_answer_says_can_be_read() -> None:
    assert client_shown(legible("stun", Heard(STUN)), "2001:db8::c0de", "172.17.42.1") is True
    assert client_shown(Heard(STUN), "2001:db8::c0de", "172.17.42.1") is None
    assert legible("stun", Heard(b"")) == Heard(b"")


@pytest.mark.parametrize("size", range(len(STUN)))
def test_a_stun_answer_that_is_cut(size: int) -> None:
    assert legible("stun", Heard(STUN[:size])) == Heard(STUN[:size])


@pytest.mark.parametrize(
    ("result", "seen", "then"),
    [
        (ACCEPTED, True, ACCEPTED),
        (ACCEPTED, False, REFUSED),
        (ACCEPTED, None, UNCLEAR),
        (REFUSED, None, REFUSED),
    ],
)
def test_a_line_that_irc_servers_pass_over(result: Result, seen: bool | None, then: Result) -> None:
    assert unless_passed_over(Verdict(result, ""), seen).result is then


def test_the_size_of_a_mysql_greeting() -> None:
    assert mysql_packet(MYSQL + b"more") == len(MYSQL)
    assert mysql_packet(b"220 mail\r\n") == 0
