"""For tests of what a server reads: h11 and the standard library, not our own parsers.

The requests that were let through are told by `RequestStream.begun`; here they are found again
by parsers that were written apart from it and from llhttp.
"""

from __future__ import annotations

import http.client
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from email.parser import Parser
from typing import NamedTuple

import h11
from h11._state import MIGHT_SWITCH_PROTOCOL

from v6fwd.client_ip.budget import UNBOUNDED, TimeBudget
from v6fwd.client_ip.http.requests import RequestStream
from v6fwd.client_ip.http.syntax import HttpRefused, HttpRules, Kind
from v6fwd.model import Address, ClientIP

CLIENT = Address(bytes.fromhex("20010db8000100000000000000000002"), 54321)
DIALLED = Address(bytes.fromhex("20010db8000100000000000000000001"), 8080)
XFF, FORWARDED = ClientIP.X_FORWARDED_FOR, ClientIP.FORWARDED

ADDED = {
    XFF: [
        (b"x-forwarded-for", b"2001:db8:1::2"),
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-port", b"8080"),
        (b"x-real-ip", b"2001:db8:1::2"),
    ],
    FORWARDED: [(b"forwarded", b'for="[2001:db8:1::2]:54321";proto=http')],
}
"""What every request of an untrusted client gets; `forwarded` may have a host behind it."""

_ADDRESS_RE = re.compile(rb"x-forwarded.*|forwarded.*|x-real-ip")


class Request(NamedTuple):
    """One request as a server reads it."""

    method: bytes
    target: bytes
    version: bytes
    fields: list[tuple[bytes, bytes]]  # names in lower case
    body: bytes = b""
    whole: bool = True

    def all(self, name: bytes) -> list[bytes]:
        """The values of a field, in order."""
        return [value for field, value in self.fields if field == name]

    @property
    def kind(self) -> Kind:
        """What it is to the reader of responses."""
        if self.method == b"CONNECT":
            return Kind.CONNECT
        if self.all(b"upgrade"):
            return Kind.UPGRADE
        return Kind.HEAD if self.method == b"HEAD" else Kind.PLAIN


class Outcome(NamedTuple):
    """What became of the bytes of a client."""

    out: bytes
    begun: tuple[Kind, ...]
    refused: HttpRefused | None
    opaque: bool


Make = Callable[[], RequestStream]


def maker(
    mode: ClientIP = XFF, *, trusted: bool = False, hurried: bool = False, **rules: object
) -> Make:
    """Makes streams of one kind. `hurried`: each has time for a single part a call."""
    made = HttpRules(mode, **rules)  # type: ignore[arg-type]
    return lambda: RequestStream(
        made, CLIENT, DIALLED, trusted=trusted, budget=hurry() if hurried else UNBOUNDED
    )


def hurry() -> TimeBudget:
    """A budget that is over after a single part: a second passes whenever somebody looks."""
    return TimeBudget(itertools.count(0.0).__next__)


def feed(make: Make, parts: Iterable[bytes], *, splice: int = 0) -> Outcome:
    """Give the parts to a stream; of every `splice`th, bodies go past it where they may."""
    stream = make()
    out: list[bytes] = []
    for number, part in enumerate(parts):
        data = part
        while data:
            if splice and number % splice == 0 and stream.passing:
                step = min(stream.passing, len(data))
                out.append(data[:step])
                stream.passed(step)
                data = data[step:]
            else:
                out += [bytes(piece) for piece in stream.receive(data)]
                while stream.more:
                    assert not stream.passing
                    assert not stream.in_head
                    out += [bytes(piece) for piece in stream.receive(b"")]
                data = b""
            assert not (stream.refused and stream.passing), "bytes would pass a refusal"
    return Outcome(b"".join(out), tuple(stream.begun), stream.refused, stream.opaque)


def every_cut(raw: bytes) -> Iterator[list[bytes]]:
    """Byte by byte, and in two at each position; of long samples at some, limits among them."""
    yield [raw[at : at + 1] for at in range(len(raw))]
    places = set(range(1, len(raw)))
    if len(raw) > 1500:
        edges = [0, len(raw), *(limit + raw.find(b"GET") for limit in (8190, 8192, 16384))]
        near = {edge + step for edge in edges for step in range(-60, 60)}
        places &= near | set(range(0, len(raw), 997))
    for at in sorted(places):
        yield [raw[:at], raw[at:]]


def h11_requests(data: bytes) -> list[Request]:
    """The requests that h11 reads as a server; raises h11.RemoteProtocolError."""
    requests: list[Request] = []
    while data:
        # h11 ends with the first request of HTTP/1.0; kept alive, the next is read by another
        data = _h11_connection(data, requests)
    return requests


def _h11_connection(data: bytes, requests: list[Request]) -> bytes:
    """Read what one connection of h11 does; give the bytes behind it."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 17)
    server.receive_data(data)
    while True:
        event = server.next_event()
        if isinstance(event, h11.Request):
            fields = [(bytes(name), bytes(value)) for name, value in event.headers]
            version, method = bytes(event.http_version), bytes(event.method)
            requests.append(Request(method, bytes(event.target), version, fields, b"", False))
        elif isinstance(event, h11.Data):
            requests[-1] = requests[-1]._replace(body=requests[-1].body + bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            assert not event.headers, "trailers reached the target"
            requests[-1] = requests[-1]._replace(whole=True)
            if not _answer(server):
                behind = server.trailing_data[0]
                kept_alive = requests[-1].all(b"connection") == [b"keep-alive"]
                assert kept_alive or not behind, "bytes behind the last request"
                return behind
        else:
            return b""


def _answer(server: h11.Connection) -> bool:
    """Answer the request, so that the next can be read; False if there can be none."""
    if server.their_state is MIGHT_SWITCH_PROTOCOL:
        return False
    server.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
    server.send(h11.EndOfMessage())
    if h11.MUST_CLOSE in (server.our_state, server.their_state):
        return False
    server.start_next_cycle()
    return True


def stdlib_fields(head: bytes) -> list[tuple[bytes, bytes]]:
    """The fields that http.server reads in a head, behind its request line."""
    _, _, block = head.partition(b"\r\n")
    # as http.client.parse_headers does it, without its limit of a hundred fields
    message = Parser(_class=http.client.HTTPMessage).parsestr(block.decode("latin-1"))
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in message.raw_items()
    ]


def assert_trustworthy(request: Request, mode: ClientIP = XFF) -> None:
    """One address, the true one, under every name that a server could take for it."""
    told = [
        (name, value)
        for name, value in request.fields
        if _ADDRESS_RE.fullmatch(re.sub(rb"[^a-z0-9]", b"-", name))
    ]
    if mode is FORWARDED:
        host = request.all(b"host")
        told = [(name, value.partition(b";host=")[0]) for name, value in told]
        assert len(host) <= 1
    assert told == ADDED[mode]


def assert_agreed(outcome: Outcome, mode: ClientIP = XFF) -> Sequence[Request]:
    """h11 reads exactly the requests that were let through, each with the true address."""
    requests = h11_requests(outcome.out)
    assert tuple(request.kind for request in requests) == outcome.begun
    assert all(request.whole for request in requests[:-1])
    for request in requests:
        assert_trustworthy(request, mode)
    return requests
