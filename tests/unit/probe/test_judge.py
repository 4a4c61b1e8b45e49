"""What answers mean: tables."""

from __future__ import annotations

import pytest

from v6fwd.probe.judge import End, Heard, Result, client_shown, judge, printable
from v6fwd.probe.openings import DNS_ID, greeting_of

ACCEPTED, REFUSED, SILENT, UNCLEAR = Result
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
