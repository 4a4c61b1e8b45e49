"""Requests and answers cut anywhere, in any interleaving: each answer belongs to its request.

What the target reads is read by h11, and what the client gets is compared byte by byte, since
answers pass unchanged. An end in the middle of an answer never looks like its end.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.deep import examples
from tests.support.http_reading import h11_requests
from tests.support.rig import MIB, Rig, noise, reset

PATIENCE = 4.0
"""Seconds without a byte."""
BODY = noise(400_000, seed=1)
SIZES = st.sampled_from([0, 1, 100, 65_535, 65_536, 65_537, 200_000])
CHUNKS = st.lists(st.sampled_from([1, 2, 100, 4000, 70_000]), max_size=6)


@dataclass(frozen=True)
class Exchange:
    """A request and its answer: sizes of their bodies, or of the chunks of these."""

    method: str
    asked: int | tuple[int, ...]
    answered: int | tuple[int, ...]

    def request(self, number: int) -> bytes:
        """As the client sends it."""
        return message(f"{self.method} /{number} HTTP/1.1\r\nHost: h\r\n", self.asked)

    def answer(self, number: int) -> bytes:
        """As the target sends it; HEAD has no body, whatever its fields say."""
        whole = message(f"HTTP/1.1 200 OK\r\nX-Number: {number}\r\n", self.answered)
        return whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if self.method == "HEAD" else whole

    @property
    def body(self) -> bytes:
        """What the target has to read."""
        if isinstance(self.asked, int):
            return BODY[: self.asked]
        return b"".join(BODY[:size] for size in self.asked)


def message(head: str, sizes: int | tuple[int, ...]) -> bytes:
    """A message with a body of that length, or of these chunks."""
    if isinstance(sizes, int):
        return f"{head}Content-Length: {sizes}\r\n\r\n".encode() + BODY[:sizes]
    chunks = b"".join(b"%x\r\n%b\r\n" % (size, BODY[:size]) for size in sizes)
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


OF_THE_RELAY = tuple(b"HTTP/1.1 %d " % status for status in (400, 408, 502, 504))
"""How an answer begins that no target gave."""
BODIES = st.one_of(SIZES, CHUNKS.map(tuple))
EXCHANGES = st.lists(
    st.one_of(
        st.builds(Exchange, st.sampled_from(["GET", "HEAD"]), st.just(0), BODIES),
        st.builds(Exchange, st.sampled_from(["POST", "PUT"]), BODIES, BODIES),
    ),
    min_size=1,
    max_size=5,
)
ACTS = ["ask", "answer", "ask unread", "answer unread"]
"""Unread: nobody reads behind it, so that buffers fill."""
STEPS = st.lists(
    st.tuples(st.sampled_from(ACTS), st.sampled_from([1, 17, 300, 65_536, MIB])), max_size=20
)
ENDS = st.sampled_from(
    ["well"] * 6 + ["client finish"] * 2 + ["client reset", "target reset", "target end"]
)


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One relay process for all programs."""
    rig = Rig(tmp_path_factory.mktemp("http")).start("--client-ip", "x-forwarded-for")
    yield rig
    rig.end()
    assert "internal error" not in rig.process.log
    assert "Traceback" not in rig.process.log


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One that waits for nobody."""
    options = ("--idle-timeout", "0.2", "--request-timeout", "0.2", "--response-timeout", "0.2")
    rig = Rig(tmp_path_factory.mktemp("impatient"))
    yield rig.start("--client-ip", "x-forwarded-for", *options)
    rig.end()
    assert "internal error" not in rig.process.log
    assert "Traceback" not in rig.process.log


@dataclass
class Talk:
    """A client, the target's end, and how far both are."""

    rig: Rig
    exchanges: list[Exchange]
    client: socket.socket
    target: socket.socket | None = None
    asked: int = 0
    answered: int = 0
    at_target: bytearray = field(default_factory=bytearray)
    at_client: bytearray = field(default_factory=bytearray)
    ends: set[str] = field(default_factory=set)
    """Who has read an end, and which: "client end", "target reset", ..."""

    def __post_init__(self) -> None:
        self.requests = b"".join(one.request(n) for n, one in enumerate(self.exchanges))
        self.answers = [one.answer(n) for n, one in enumerate(self.exchanges)]
        self.due = 0
        """Bytes of answers to the requests that the target has whole."""

    @property
    def all_answers(self) -> bytes:
        """What the client has to get."""
        return b"".join(self.answers)

    def step(self, what: str, size: int) -> None:
        """Send so many bytes more, as far as there is room and the target knows what is asked."""
        if what.startswith("ask"):
            self.asked += self._send(self.client, self.requests[self.asked : self.asked + size])
        elif self.target is not None:
            data = self.all_answers[self.answered : min(self.due, self.answered + size)]
            self.answered += self._send(self.target, data)
        if not what.endswith("unread"):
            self.read()

    def _send(self, sock: socket.socket, data: bytes) -> int:
        try:
            return sock.send(data) if data else 0
        except (BlockingIOError, ConnectionResetError, BrokenPipeError):
            return 0

    def read(self, patience: float = 0) -> bool:
        """Read what has come to both; False where nothing has in `patience` seconds."""
        socks = {"client": self.client, "target": self.target or self.rig.server}
        waiting = {s: who for who, s in socks.items() if not self.has_ended(who)}
        ready = select.select(list(waiting), [], [], patience)[0] if waiting else []
        for sock in ready:
            if sock is self.rig.server:
                self.target = self.rig.accept()
                self.target.setblocking(False)
            else:
                self._take(sock, waiting[sock])
        return bool(ready)

    def _take(self, sock: socket.socket, who: str) -> None:
        into = self.at_client if who == "client" else self.at_target
        try:
            data = sock.recv(MIB)
        except ConnectionResetError:
            self.ends.add(f"{who} reset")
            return
        into += data
        if not data:
            self.ends.add(f"{who} end")
        elif who == "target":
            whole = sum(one.whole for one in h11_requests(bytes(into)))
            self.due = sum(map(len, self.answers[:whole]))

    def has_ended(self, who: str) -> bool:
        """Whether it reads nothing more."""
        return bool({f"{who} end", f"{who} reset"} & self.ends)

    def finish(self) -> None:
        """Send all the rest, and read it."""
        while len(self.at_client) < len(self.all_answers) and not self.has_ended("client"):
            before = self._progress()
            self.step("ask", MIB)
            self.step("answer", MIB)
            assert self._progress() > before or self.read(PATIENCE), "it has stalled"

    def _progress(self) -> int:
        return self.asked + self.answered + len(self.at_client) + len(self.at_target)

    def meet(self) -> None:
        """Wait for the target's end, if the head of a request is there: no other talk takes it."""
        head = self.requests.index(b"\r\n\r\n") + 4
        while self.target is None and self.asked >= head and not self.has_ended("client"):
            assert self.read(PATIENCE), "nobody has come to the target"

    def check(self) -> None:
        """What the target has read is what was asked, and so is what came back."""
        got = h11_requests(bytes(self.at_target))
        for number, (request, one) in enumerate(zip(got, self.exchanges, strict=False)):
            assert (request.method, request.target) == (one.method.encode(), b"/%d" % number)
            assert request.all(b"x-forwarded-for") == [b"::1"]
            assert request.body == (one.body if request.whole else one.body[: len(request.body)])
        assert self.all_answers.startswith(bytes(self.at_client))


def play(rig: Rig, exchanges: list[Exchange], steps: list[tuple[str, int]]) -> Talk:
    """Let both talk for some steps."""
    talk = Talk(rig, exchanges, rig.connect())
    talk.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    talk.client.setblocking(False)
    for what, size in steps:
        talk.step(what, size)
        talk.check()
    talk.meet()
    return talk


@examples(120)
@given(exchanges=EXCHANGES, steps=STEPS, end=ENDS)
def test_any_program(
    relay: Rig, exchanges: list[Exchange], steps: list[tuple[str, int]], end: str
) -> None:
    try:
        talk = play(relay, exchanges, steps)
        if end == "well":
            talk.finish()
            talk.check()
            assert bytes(talk.at_client) == talk.all_answers
            assert len(h11_requests(bytes(talk.at_target))) == len(exchanges)
        elif end == "client reset":
            reset(talk.client)
            talk.ends.add("client reset")
            while talk.target is not None and not talk.has_ended("target"):
                assert talk.read(PATIENCE), "the target is not told"
            talk.check()
            assert_not_whole(talk)
        elif end == "client finish":
            finished_by_client(talk)
        elif talk.target is not None:
            cut_by_target(talk, hard=end == "target reset")
    finally:
        relay.drop()
    relay.settled()


@examples(40)
@given(exchanges=EXCHANGES, steps=STEPS)
def test_any_program_that_idles(
    impatient: Rig, exchanges: list[Exchange], steps: list[tuple[str, int]]
) -> None:
    """A slow machine may let the time run out anywhere: bytes may be missing, none are wrong."""
    try:
        talk = play(impatient, exchanges, steps)
        until_client_ends(talk)
        assert_cut(talk)
        while talk.target is not None and not talk.has_ended("target"):
            assert talk.read(PATIENCE), "the target is not told"
        assert_not_whole(talk)
    finally:
        impatient.drop()
    impatient.settled()


def assert_not_whole(talk: Talk) -> None:
    """A request that was cut off never looks whole at the target: a clean end is between two."""
    if "target end" in talk.ends:
        got = h11_requests(bytes(talk.at_target))
        assert all(request.whole for request in got)


def cut_by_target(talk: Talk, *, hard: bool) -> None:
    """The target goes away in the middle: the client sees whole answers, and how it was cut."""
    assert talk.target is not None
    if hard:
        reset(talk.target)
    else:
        talk.target.close()
    talk.ends.add("target end")
    until_client_ends(talk)
    assert_cut(talk)


def finished_by_client(talk: Talk) -> None:
    """The client ends its stream: whole requests are answered, and one that is cut is not whole.

    The target is told by an end of stream, since that is what the client did: the length of a
    request shows that it is cut.
    """
    talk.client.shutdown(socket.SHUT_WR)
    while not talk.has_ended("client"):
        before = talk.answered
        talk.step("answer", MIB)
        if talk.answered > before or talk.has_ended("client"):
            continue
        if talk.target is not None and talk.has_ended("target"):  # as servers do
            with contextlib.suppress(OSError):  # it has been reset
                talk.target.shutdown(socket.SHUT_WR)
        assert talk.read(PATIENCE), "the client is not told"
    assert "client reset" not in talk.ends
    assert_cut(talk)
    assert len(talk.at_client) >= talk.due
    while talk.target is not None and not talk.has_ended("target"):
        assert talk.read(PATIENCE), "the target is not told"
    sent = h11_requests(talk.requests[: talk.asked])
    got = h11_requests(bytes(talk.at_target))
    assert sum(one.whole for one in got) <= sum(one.whole for one in sent)


def until_client_ends(talk: Talk) -> None:
    """Read at both ends."""
    while not talk.has_ended("client"):
        assert talk.read(PATIENCE), "the client is not told"


def assert_cut(talk: Talk) -> None:
    """The client saw whole answers, perhaps one of the relay's behind them, and how it was cut."""
    got, rest = bytes(talk.at_client), b""
    places = [sum(map(len, talk.answers[:n])) for n in range(len(talk.answers) + 1)]
    for place in places:
        if got[place:].startswith(OF_THE_RELAY):
            got, rest = got[:place], got[place:]
    assert talk.all_answers.startswith(got)
    if "client end" in talk.ends:
        assert len(got) in places, "a cut answer ends as if whole"
    if rest:
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(rest)
        answer = reader.next_event()
        assert isinstance(answer, h11.Response)
