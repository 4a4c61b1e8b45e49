"""Connections and datagrams of a probe, each with an end: bytes, seconds and a budget."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from v6fwd.errors import RelayError, reason
from v6fwd.model import Endpoint
from v6fwd.probe.forms import SPLIT_AT, Form
from v6fwd.probe.judge import End, Heard, mysql_packet
from v6fwd.probe.openings import Opening
from v6fwd.relay.sockets import address_of

CONNECTIONS = 100
"""Connections or UDP sockets in all: the forms are a dozen, the largest header another sixty."""
SECONDS = 60.0
"""For the whole probe."""
MAX_ANSWER = 64 * 1024
"""Bytes of one answer: enough of a page to find an address in it."""
QUIET = 0.3
"""Seconds without another byte that end an answer without an end of its own."""
APART = 0.15
"""Seconds between the two segments of a split header: the first must be read alone."""

_REPLY_END = re.compile(rb"(?:^|\n)[0-9]{3} [^\n]*\n")
"""The last line of a reply in SMTP and FTP (RFC 5321, 4.2; RFC 959, 4.2)."""


class ProbeError(RelayError):
    """The target cannot be asked; the text is one line."""


class Asker:
    """Asks one target; counts what it costs. `own` is the address that we ask from."""

    def __init__(self, target: Endpoint, patience: float) -> None:
        """`patience`: seconds for one answer. Raises ProbeError where the name has no address."""
        self.target = target
        self.patience = patience
        self.own = ""
        self.used = 0
        self._until = time.monotonic() + SECONDS
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ProbeError(f"{target.host} has no address: {reason(error)}") from None
        self._family: int = found[0][0]
        self._sockaddr: Any = found[0][4]

    def tcp(self, form: Form, opening: Opening, patience: float | None = None) -> Heard:
        """One connection: the header, the opening, and what comes back. Raises ProbeError."""
        patience = self.patience if patience is None else patience
        with self._connected(socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                return _converse(sock, form, opening, patience)
            except OSError:  # reset while we wrote
                return Heard(end=End.RESET)

    def udp(self, datagrams: Sequence[bytes]) -> list[Heard]:
        """Datagrams from one port, each after the answer to the one before. Raises ProbeError."""
        with self._connected(socket.SOCK_DGRAM) as sock:
            return [self._datagram(sock, data) for data in datagrams]

    def _datagram(self, sock: socket.socket, data: bytes) -> Heard:
        try:
            sock.send(data)
            if not _is_readable(sock, self.patience):
                return Heard()
            return Heard(sock.recv(MAX_ANSWER))
        except ConnectionRefusedError:
            raise ProbeError(f"nobody listens at {self.target}: port unreachable") from None
        except OSError:  # longer than a datagram may be
            return Heard(end=End.RESET)

    @contextlib.contextmanager
    def _connected(self, kind: int) -> Iterator[socket.socket]:
        self._count()
        with socket.socket(self._family, kind) as sock:
            sock.settimeout(self.patience)
            try:
                sock.connect(self._sockaddr)
                self.own = address_of(sock.getsockname()).host
            except OSError as error:
                why = reason(error) if error.errno else "no answer"
                raise ProbeError(f"cannot connect to {self.target}: {why}") from None
            yield sock

    def _count(self) -> None:
        self.used += 1
        if self.used > CONNECTIONS:
            raise ProbeError(f"stopped after {CONNECTIONS} connections to {self.target}")
        if time.monotonic() > self._until:
            raise ProbeError(f"stopped after {SECONDS:.0f} s at {self.target}: it answers slowly")


def _converse(sock: socket.socket, form: Form, opening: Opening, patience: float) -> Heard:
    if opening.server_first:
        return _be_greeted(sock, form, opening, patience)
    _send(sock, form, opening.send)
    data, end = _receive(sock, patience, opening.name)
    return Heard(data, end=end)


def _be_greeted(sock: socket.socket, form: Form, opening: Opening, patience: float) -> Heard:
    _send(sock, form, b"")
    got, end = _receive(sock, patience, "greeting")
    greeting, data = _cut_greeting(got)
    if not got or end is not End.OPEN or not opening.send:
        return Heard(data, greeting, end)
    with contextlib.suppress(OSError):  # it may have hung up on the header; what it said is here
        sock.sendall(opening.send)
    more, end = _receive(sock, patience, opening.name, data)
    with contextlib.suppress(OSError):  # it may have hung up first
        sock.sendall(opening.bye)
    return Heard(more, greeting, end)


def _send(sock: socket.socket, form: Form, opening: bytes) -> None:
    """Header and opening in one segment, as v6fwd sends them, unless the header is split."""
    if not form.is_split:
        sock.sendall(form.header + opening)
        return
    sock.sendall(form.header[:SPLIT_AT])
    time.sleep(APART)
    sock.sendall(form.header[SPLIT_AT:] + opening)


def _receive(
    sock: socket.socket, patience: float, protocol: str, data: bytes = b""
) -> tuple[bytes, End]:
    """What comes until it is a whole answer, the connection ends, or it is quiet."""
    while len(data) < MAX_ANSWER and not _is_whole(protocol, data):
        if not _is_readable(sock, QUIET if data else patience):
            break
        try:
            part = sock.recv(MAX_ANSWER)
        except OSError:
            return data, End.RESET
        if not part:
            return data, End.CLOSED
        data += part
    return data, End.OPEN


def _is_readable(sock: socket.socket, seconds: float) -> bool:
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def _is_whole(protocol: str, data: bytes) -> bool:
    """Whether an answer needs nothing more to be judged."""
    if protocol in ("smtp", "ftp"):
        return _REPLY_END.search(data) is not None
    if protocol in _WHOLE:
        return _WHOLE[protocol](data)
    if protocol == "greeting" and mysql_packet(data):
        return len(data) >= mysql_packet(data)
    if protocol == "greeting":
        last = data.rstrip(b"\r\n").rpartition(b"\n")[2]
        return data.endswith(b"\n") and last[3:4] != b"-"
    if protocol == "imap":
        return b"\nv6 " in data and data.endswith(b"\n")
    if protocol == "dns":
        return len(data) > 1 and len(data) >= 2 + int.from_bytes(data[:2], "big")
    return len(data) >= _LENGTHS.get(protocol, MAX_ANSWER)


_LENGTHS = {"tls": 7, "postgresql": 1, "ssh": 6}
_WHOLE: Mapping[str, Callable[[bytes], bool]] = {
    "mysql": lambda data: len(data) > 4 and len(data) >= 4 + int.from_bytes(data[:3], "little"),
    "stun": lambda data: len(data) >= 20 + int.from_bytes(data[2:4], "big"),
    "xmpp": lambda data: b"</stream:features>" in data or b"</stream:stream>" in data,
}


def _cut_greeting(data: bytes) -> tuple[bytes, bytes]:
    """A greeting is a line, a whole reply of SMTP or FTP, or MySQL's; what follows is an answer."""
    if size := mysql_packet(data):
        return data[:size], data[size:]
    match = _REPLY_END.match(data) or re.match(rb"(?:[0-9]{3}-[^\n]*\n)+[0-9]{3} [^\n]*\n", data)
    end = match.end() if match else data.find(b"\n") + 1 or len(data)
    return data[:end], data[end:]
