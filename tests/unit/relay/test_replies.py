"""Replies that lie in wait: whose they are, their bounds and order, and when they go."""

from __future__ import annotations

import ctypes
import errno
import random
from collections import defaultdict
from typing import Any

import pytest

from v6fwd.relay.udp.gso import MAX_DATAGRAM, Sender, cut_pieces
from v6fwd.relay.udp.mmsg import BLOCK_SIZE, SLOTS, Messages
from v6fwd.relay.udp.pktinfo import INET6
from v6fwd.relay.udp.replies import LOOKS, Replies


class FakeReactor:
    """Counts who wants to be resumed."""

    def __init__(self) -> None:
        self.at_once = 2
        self.now = 0.0
        self.asked = 0

    def clock(self) -> float:
        return self.now

    def resume_later(self, _: Any) -> None:
        self.asked += 1


class FakeSending:
    """A listener, and what it has lost."""

    def __init__(self) -> None:
        self.fd = -1
        self.family = INET6
        self.errors: list[int | None] = []

    def lost(self, error: OSError) -> None:
        self.errors.append(error.errno)

    def on_exception(self, error: Exception) -> None:
        raise error


class FakeSession:
    """A session, its name in its block."""

    def __init__(self, name: bytes = b"one") -> None:
        self.block = name.ljust(BLOCK_SIZE, b"\0")
        self.down_limit = MAX_DATAGRAM


class Wire:
    """Takes the place of sendmmsg(2): what each client got, and in how many messages."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.got: dict[bytes, list[bytes]] = defaultdict(list)
        self.messages = 0
        self.refuses: int | None = None
        monkeypatch.setattr(Messages, "send", lambda *args: self.send(*args))

    def send(self, messages: Messages, _: int, number: int) -> int:
        segment, pieces = messages.segment(number), messages.pieces(number)
        if segment and self.refuses is not None:
            raise OSError(self.refuses, "")
        self.messages += 1
        parts = cut_pieces(pieces, segment) if segment else [pieces]
        for part in parts:
            data = b"".join(
                ctypes.string_at(address, size)
                for address, size in zip(part[::2], part[1::2], strict=True)
            )
            self.got[messages.block(number).rstrip(b"\0")].append(data)
        return 1


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    """See Wire."""
    return Wire(monkeypatch)


@pytest.fixture
def sending() -> FakeSending:
    """See FakeSending."""
    return FakeSending()


@pytest.fixture
def reactor() -> FakeReactor:
    """See FakeReactor."""
    return FakeReactor()


@pytest.fixture
def replies(reactor: FakeReactor) -> Replies:
    """With a reactor that is always busy."""
    made: Any = reactor
    return Replies(made, Sender())


def put(replies: Replies, sending: FakeSending, session: FakeSession, data: bytes) -> None:
    """As if a session had read `data`."""
    replies.room(sending)[0][: len(data)] = data
    replies.put(session, len(data))


def test_all_sizes_of_many_sessions(replies: Replies, sending: FakeSending, wire: Wire) -> None:
    """More than there are slots for: everybody gets what is theirs, in order, with its bounds."""
    rng = random.Random(5)
    sessions = {bytes([65 + number]): FakeSession(bytes([65 + number])) for number in range(7)}
    sent: dict[bytes, list[bytes]] = defaultdict(list)
    for _ in range(2000):
        name = rng.choice(list(sessions))
        sent[name].append(rng.randbytes(rng.choice([0, 1, 9, 9, 9, 80, 80, 1200, 65_507])))
        put(replies, sending, sessions[name], sent[name][-1])
    replies.flush()
    assert wire.got == sent
    assert sending.errors == []


@pytest.mark.parametrize(
    ("sizes", "messages"),
    [
        ([50] * SLOTS, 1),
        ([50, 50, 49, 49], 2),
        ([50, 49, 50, 49], 2),
        ([49, 50], 2),
        ([50, 0, 50], 3),
        ([0, 0], 2),
        ([40_000, 40_000], 2),
    ],
)
def test_neighbours_become_one_message(
    replies: Replies, sending: FakeSending, wire: Wire, sizes: list[int], messages: int
) -> None:
    session, other = FakeSession(), FakeSession(b"other")
    put(replies, sending, other, b"first")
    for size in sizes[: SLOTS - 1]:
        put(replies, sending, session, bytes(size))
    replies.flush()
    assert [len(data) for data in wire.got[b"one"]] == sizes[: SLOTS - 1]
    assert wire.messages == messages + 1


def test_no_segment_above_what_the_path_takes(
    replies: Replies, sending: FakeSending, wire: Wire
) -> None:
    session = FakeSession()
    session.down_limit = 49
    for size in (50, 50, 49, 49):
        put(replies, sending, session, bytes(size))
    replies.flush()
    assert wire.messages == 3


def test_a_segmented_message_that_cannot_go_is_cut_up(
    replies: Replies, sending: FakeSending, wire: Wire
) -> None:
    """And this client gets none with such segments any more; nothing is lost."""
    session, other = FakeSession(), FakeSession(b"other")
    wire.refuses = errno.EMSGSIZE
    for text in (b"abc", b"def", b"g"):
        put(replies, sending, session, text)
    put(replies, sending, other, b"hij")
    replies.flush()
    assert wire.got == {b"one": [b"abc", b"def", b"g"], b"other": [b"hij"]}
    assert (session.down_limit, other.down_limit, sending.errors) == (2, MAX_DATAGRAM, [])


def test_another_error_costs_the_message(
    replies: Replies, sending: FakeSending, wire: Wire
) -> None:
    session = FakeSession()
    wire.refuses = errno.ENOBUFS
    for text in (b"abc", b"def", b"longer"):
        put(replies, sending, session, text)
    replies.flush()
    assert wire.got == {b"one": [b"longer"]}
    assert sending.errors == [errno.ENOBUFS]


def test_they_wait_while_there_is_something_to_do(
    replies: Replies, sending: FakeSending, wire: Wire, reactor: FakeReactor
) -> None:
    put(replies, sending, FakeSession(), b"reply")
    for number in range(LOOKS):
        replies.resume()
        assert (wire.messages, reactor.asked) == (0, number + 2)
    replies.resume()
    assert (wire.messages, reactor.asked) == (1, LOOKS + 1)


@pytest.mark.parametrize(("milliseconds", "sent"), [(0.9, 0), (1.0, 1)])
def test_they_wait_for_a_millisecond_at_most(
    replies: Replies, sending: FakeSending, wire: Wire, reactor: FakeReactor,
    milliseconds: float, sent: int,
) -> None:  # fmt: skip
    """Events of TCP can take long; a reply that waits for longer shows in every round trip."""
    put(replies, sending, FakeSession(), b"reply")
    reactor.now += milliseconds / 1000
    replies.resume()
    assert wire.messages == sent


@pytest.mark.parametrize("why", ["nothing to do", "long ago", "many"])
def test_they_wait_no_longer(
    replies: Replies, sending: FakeSending, wire: Wire, reactor: FakeReactor, why: str
) -> None:
    for _ in range(SLOTS // 2 if why == "many" else 1):
        put(replies, sending, FakeSession(), b"reply")
    if why == "nothing to do":
        reactor.at_once = 0
    elif why == "long ago":
        reactor.now += 1
    replies.resume()
    assert (wire.messages > 0, reactor.asked) == (True, 1)
