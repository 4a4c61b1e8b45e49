"""Judges how a target answered the opening of a connection: did it take what we put there?

A server that does not know the PROXY header answers it as if the client had said it: with HTTP
400, with an error behind its greeting, or with an end. A server that wants a header, and gets
none, ends without a byte. Clients provoke the same answers with bytes that make no sense, so an
error counts only where the client has said nothing, or what its protocol begins with.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto

from v6fwd.model.patterns import Lazy

QUICK = 10.0
"""Seconds from the accept in which an end without a byte counts; later it is a time limit. Postfix
waits 5 s for a header, Dovecot 3 s."""
AT_ONCE = 2.0
"""The same for the end of a connection on which only our header was sent."""
MUTE = 30.0
"""Seconds without a greeting from a server that speaks first; with less many a mail server makes
strangers wait, and the DNS others. Clients wait for minutes (RFC 5321, 4.5.3.2.1)."""
MUTE_STUN = 5.0
"""The same for the answer to STUN, which a server has at hand (RFC 8489, 6.2.2: 39.5 s)."""
WORDS_SIZE = 4096
"""Bytes of a client that are looked at: the head of a request."""
ANSWER_SIZE = 512
"""Bytes of an answer that are looked at."""


class Sent(Enum):
    """What the target gets in front of the client's bytes, or in them."""

    NOTHING = auto()
    HEADER = auto()
    FIELD = auto()
    """The address is in each HTTP request, which has been found valid."""


class Answer(StrEnum):
    """What the target made of it."""

    SERVED = "served"
    ENDED = "ended"
    """It ended or reset the connection, or answered HTTP 400, which ends it."""
    ERROR = "error"
    """Another error of a kind that it has for what it does not understand."""
    SILENT = "silent"
    """Nothing, for so long that the client has left, where a healthy server speaks at once."""
    UNCLEAR = "unclear"
    """The client may be the cause, or has left before there was an answer."""


class Words(Enum):
    """What the client has said so far."""

    NONE = auto()
    SOUND = auto()
    """What a protocol begins with that servers of that port may speak."""
    TEXT = auto()
    """Text of a protocol that is not known here: a healthy server has some answer to it."""
    ODD = auto()
    """A healthy server might answer it with an error, or with an end."""


_TLS_PORTS = frozenset((443, 465, 636, 853, 990, 993, 995))
"""Beside 8443 and the like. On other ports many a server has 400 for TLS."""
_HTTP_PORT = 80
_GREETING_PORTS = frozenset((21, 25, 110, 143, 587, 2525, 3306, 4190))
"""Where the server speaks first: FTP, SMTP, POP3, IMAP, MySQL, ManageSieve."""

_VERSIONS = (b"HTTP/1.0", b"HTTP/1.1")
_IN_PATHS = bytes(range(0x21, 0x7F))
_ESCAPES = (b"..", b"%2e", b"%0", b"%5c")
"""In a path: a server may refuse what it seems to hide."""
_OTHERS_RE = Lazy(
    rb"(?is)"
    rb"(?:EHLO|HELO|LHLO) [!-~]"  # SMTP
    rb"|SSH-2\.0-"
    rb"|\0\0\0\x08\x04\xd2\x16\x2f|\0\0..\0\x03\0\0"  # PostgreSQL: SSLRequest, StartupMessage
    rb"|\*[1-9][0-9]*\r\n\$"  # Redis
    rb"|[A-Za-z0-9.]{1,16} (?:CAPABILITY|LOGIN|AUTHENTICATE|STARTTLS|ID|NOOP)\b"  # IMAP
    rb"|(?:CAPA|STLS)\r\n|(?:USER|AUTH) [!-~]"  # POP3, FTP
    rb"|(?:NICK|PASS|CAP) [!-~]"  # IRC
    rb"|<\?xml |<stream:stream "  # XMPP
    rb"|\0[\x01\x03]..\x21\x12\xa4\x42"  # STUN, TURN
    rb"|[\x20-\xff].\0\x01.{9}\0{19}"  # MySQL: SSLRequest, HandshakeResponse41
)
_STUN = (b"\0\x01", b"\0\x03")
_STUN_COOKIE = b"\x21\x12\xa4\x42"
_TEXT_RE = Lazy(rb"[\t -~][\t\r\n -~]*")
_GREETING_RE = Lazy(
    rb"(?:220[ -][^\n]*\n)+|(?:\* (?:OK|PREAUTH)[^\n]*\n)+|\+OK[^\n]*\n|SSH-2\.0-[^\n]*\n"
    rb"|(?::\S+ NOTICE [^\n]*\n)+"  # IRC
    rb"|<\?xml [^>]*>\s*(?:<stream:stream [^>]*>)?|<stream:stream [^>]*>"  # XMPP, to anything
)
_MORE_GREETING_RE = Lazy(
    rb"(?:220[ -][^\n]*\n)+|(?:\* OK[^\n]*\n)+|(?::\S+ NOTICE [^\n]*\n)+|<stream:stream [^>]*>"
)
"""In a segment of its own. Dovecot greets twice: it waits for another process."""
_GREETINGS_BEGIN = (b"2", b"*", b"+", b"S", b":", b"<")
_MYSQL_GREETING = b"\0\0\n"
"""Behind the two lower bytes of its length: the third, number 0, protocol 10."""
_HTTP_RE = Lazy(rb"HTTP/[0-9.]+ ([0-9]{3})")
_PAGE_RE = Lazy(rb"(?is)\s*<[!h].*\b400\b")
"""An answer to what was not even taken for HTTP/1: Python's http.server gives no status line."""
_NOT_UNDERSTOOD = (b"400", b"501", b"505")
_NUMBER_RE = Lazy(rb"[45][0-9]{2}[ -]")
_BEHIND_GREETING_RE = Lazy(
    rb"(?s)50[0-3][ -]|(?:\*|PROXY) (?:BAD|BYE)|Invalid SSH|Protocol mism"
    rb"|ERROR :[^\n]*(?:exited|Quit)"  # IRC
    rb"|<stream:error[^>]*>\s*<(?:bad-format|invalid-xml|not-well-formed|restricted-xml)"
    # MySQL's ERR: bad handshake (1043), out of order (1156); MariaDB of a sender it does not trust
    rb"|..\0.\xff(?:\x13\x04|\x84\x04|\x6a\x04#.....Proxy header)"
)
_IRC_RE = Lazy(rb"ERROR :[^\n]*(?:exited|Quit)")
"""v2's signature has the line QUIT, and the server obeys it."""
_SILENT_ERROR_RE = Lazy(rb"[45][0-9]{2}[ -]|-ERR|\S+ BAD")
_REDIS_RE = Lazy(rb"-ERR (?:unknown command|Protocol error)")
_POSTFIX = b"421 4.3."
"""Postfix in want of a header: "Server local error", of postscreen "No system resources"."""
_EXIM_RE = Lazy(rb"503 [^\n]*Proxy negotiation")
_ALERTS = (10, 50, 70)
"""TLS: unexpected message, decode error, protocol version."""


def compile_patterns() -> None:
    """Do so now, in the parent of workers: each would have these pages for itself."""
    for each in globals().values():
        if isinstance(each, Lazy):
            each.compile()


def words_of(data: bytes, port: int) -> Words:
    """What a client's first bytes are, for a server on that port."""
    if not data:
        return Words.NONE
    if data.startswith(b"\x16\x03"):
        return Words.SOUND if _is_tls(port) else Words.ODD
    if (path := _path_of(data)) is not None:
        is_sound = not (_is_tls(port) or any(each in path.lower() for each in _ESCAPES))
        return Words.SOUND if is_sound and _has_host(data) else Words.ODD
    if _OTHERS_RE.match(data):
        return Words.SOUND
    is_text = _TEXT_RE.fullmatch(data) and b" HTTP/" not in data and not _is_tls(port)
    return Words.TEXT if is_text else Words.ODD


def _path_of(data: bytes) -> bytes | None:
    """The path of an HTTP request; None if it is none. Without a pattern: see model/patterns."""
    line, end, _ = data.partition(b"\r\n")
    words = line.split(b" ")
    if not end or len(words) != 3 or words[2] not in _VERSIONS:
        return None
    method, path, _ = words
    is_method = 3 <= len(method) <= 16 and method.isalpha() and method.isupper()
    is_path = path.startswith(b"/") and not path.translate(None, _IN_PATHS)
    return path if is_method and is_path else None


def _has_host(data: bytes) -> bool:
    """Whether a request has the field Host, which HTTP/1.1 wants; True if it may still come."""
    line, _, _ = data.partition(b"\r\n")
    return line.endswith(_VERSIONS[0]) or b"\r\n\r\n" not in data or b"\r\nhost:" in data.lower()


def _is_tls(port: int) -> bool:
    return port in _TLS_PORTS or port % 1000 == 443


class FirstAnswer:
    """One connection from its opening to the target's answer. Gives an `Answer` once."""

    __slots__ = ("_asked_stun", "_greeted", "_port", "_sent", "words")

    def __init__(self, sent: Sent, port: int, said: bytes) -> None:
        """`said`: what the client has said so far. `port` is the target's."""
        self._sent = sent
        self._port = port
        self._greeted = self._asked_stun = False
        self.words = Words.NONE
        self._take(said, _HTTP_PORT if sent is Sent.FIELD else port)

    def client_said(self, data: bytes) -> None:
        """Take the client's first bytes, if they were not there at the beginning."""
        if self.words is Words.NONE:
            self._take(data, self._port)

    def _take(self, said: bytes, port: int) -> None:
        self.words = words_of(said, port)
        self._asked_stun = said[:2] in _STUN and said[4:8] == _STUN_COOKIE

    def target_said(self, data: bytes) -> Answer | None:
        """Judge bytes of the target; None: a greeting, so the answer is what follows."""
        end = _greeting_end(data, is_first=not self._greeted)
        if end and self._sent is not Sent.FIELD:
            self._greeted = True
            data = data[end:]
            if not data:
                return None
        if self._greeted:
            return self._behind_greeting(data)
        answer = _JUDGES[self._sent](data, self.words)
        is_bad = answer in (Answer.ENDED, Answer.ERROR)
        return Answer.UNCLEAR if is_bad and self._may_be_wrong else answer

    def target_ended(self, seconds: float, *, client_ended: bool) -> Answer:
        """Judge the target's end or reset before an answer, so long after the accept."""
        if client_ended or self.words is Words.ODD or seconds > QUICK:
            return self.unanswered(seconds)
        if self.words is not Words.NONE and not self._greeted:
            return Answer.ENDED
        if self._greeted:  # some servers have no more to say: daytime, or a client on a list
            return Answer.UNCLEAR
        if self._sent is Sent.HEADER:
            return Answer.ENDED if seconds <= AT_ONCE else Answer.UNCLEAR
        return Answer.ENDED if self._port in _GREETING_PORTS else Answer.UNCLEAR

    def unanswered(self, seconds: float) -> Answer:
        """Judge a flow that ends so long after the accept with no answer of the target's."""
        if self._greeted or self._sent is Sent.FIELD or self.words is Words.ODD:
            return Answer.UNCLEAR
        is_late = seconds >= MUTE and self._port in _GREETING_PORTS
        return (
            Answer.SILENT
            if is_late or (self._asked_stun and seconds >= MUTE_STUN)
            else Answer.UNCLEAR
        )

    def _behind_greeting(self, data: bytes) -> Answer:
        if self._sent is Sent.NOTHING:
            return Answer.ERROR if _EXIM_RE.match(data) else Answer.SERVED
        if self.words is Words.NONE and _SILENT_ERROR_RE.match(data):
            return Answer.ERROR
        if not _BEHIND_GREETING_RE.match(data):
            return Answer.SERVED
        return Answer.UNCLEAR if self._may_be_wrong else Answer.ERROR

    @property
    def _may_be_wrong(self) -> bool:
        """Whether the client may be the cause of an error."""
        return self.words in (Words.TEXT, Words.ODD)


def _greeting_end(data: bytes, *, is_first: bool) -> int:
    """How long the greeting is that data begins with; 0: it is none."""
    if data[2:5] == _MYSQL_GREETING:
        return 4 + int.from_bytes(data[:3], "little")
    if data[:1] not in _GREETINGS_BEGIN:
        return 0
    match = (_GREETING_RE if is_first else _MORE_GREETING_RE).match(data)
    return match.end() if match is not None else 0


def _of_header(data: bytes, words: Words) -> Answer:
    if (status := _HTTP_RE.match(data)) is not None:
        return _of_status(status[1])
    if data.startswith(b"\x15\x03"):
        return Answer.ERROR if data[6:7] and data[6] in _ALERTS else Answer.UNCLEAR
    if _PAGE_RE.match(data):
        return Answer.ENDED
    if _REDIS_RE.match(data) or _IRC_RE.match(data):
        return Answer.ERROR
    return _of_others(data, words)


def _of_field(data: bytes, words: Words) -> Answer:  # noqa: ARG001
    if (status := _HTTP_RE.match(data)) is not None:
        answer = _of_status(status[1])
        return Answer.ERROR if answer is Answer.ENDED else answer
    return Answer.ERROR if _PAGE_RE.match(data) else Answer.UNCLEAR


def _of_nothing(data: bytes, words: Words) -> Answer:
    return Answer.ERROR if data.startswith(_POSTFIX) else _of_others(data, words)


def _of_others(data: bytes, words: Words) -> Answer:
    """A refusal in place of a greeting may be meant for this client."""
    return Answer.UNCLEAR if words is Words.NONE and _NUMBER_RE.match(data) else Answer.SERVED


def _of_status(status: bytes) -> Answer:
    if status in _NOT_UNDERSTOOD:
        return Answer.ENDED
    return Answer.UNCLEAR if status == b"408" else Answer.SERVED


_JUDGES = {Sent.NOTHING: _of_nothing, Sent.HEADER: _of_header, Sent.FIELD: _of_field}
