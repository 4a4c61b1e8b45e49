"""Datagrams into messages: whatever the mixture, taking the messages apart gives it back."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6fwd.relay.udp.gso import (
    MAX_DATAGRAM,
    MAX_SEGMENTS,
    Item,
    Message,
    Sender,
    count_of,
    cut_pieces,
    datagrams,
    pack,
    pack_behind,
)
from v6fwd.relay.udp.mmsg import SLOT_SIZE, Memory, Outbox

BASE = 1 << 40

ITEMS = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([0, 1, 1200, MAX_DATAGRAM]), st.integers(0, MAX_DATAGRAM)),
        st.one_of(st.just(0), st.integers(20, 1500), st.integers(1, MAX_DATAGRAM)),
    ),
    max_size=70,
).map(lambda pairs: [(n * SLOT_SIZE, size, segment) for n, (size, segment) in enumerate(pairs)])

LIMITS = st.one_of(st.just(MAX_DATAGRAM), st.integers(0, MAX_DATAGRAM))


def taken_apart(messages: list[Message]) -> list[tuple[int, ...]]:
    """Addresses and lengths of each datagram, as a receiver sees them; empty pieces left out."""
    found = []
    for pieces, segment in messages:
        parts = list(cut_pieces(pieces, segment)) if segment else [pieces]
        found += [_merged(part) for part in parts]
    return found


def _merged(pieces: list[int]) -> tuple[int, ...]:
    kept = [
        (at, size) for at, size in zip(pieces[::2], pieces[1::2], strict=True) if size or not at
    ]
    return tuple(number for pair in kept for number in pair)


def expected(items: list[Item], header: tuple[int, int] | None = None) -> list[tuple[int, ...]]:
    return [
        (*(header or ()), *((BASE + start, size) if size else ()))
        for start, size in datagrams(items)
    ]


def check_messages(messages: list[Message], limit: int) -> None:
    for pieces, segment in messages:
        total = sum(pieces[1::2])
        assert segment <= limit
        if segment:
            assert total <= MAX_DATAGRAM
            assert segment < total <= segment * MAX_SEGMENTS


@settings(deadline=None)
@given(ITEMS, LIMITS)
def test_pack(items: list[Item], limit: int) -> None:
    messages = [(list(pieces), segment) for pieces, segment in pack(items, BASE, limit)]
    check_messages(messages, limit)
    assert taken_apart(messages) == expected(items)


@settings(deadline=None)
@given(ITEMS, LIMITS)
def test_pack_behind_a_header(items: list[Item], limit: int) -> None:
    fitting = [item for item in items if 52 + (item[2] or item[1]) <= MAX_DATAGRAM]
    header = (7, 52)
    messages = [(list(p), s) for p, s in pack_behind(header, fitting, BASE, limit)]
    check_messages(messages, limit)
    assert taken_apart(messages) == expected(fitting, header)


@settings(deadline=None)
@given(ITEMS)
def test_count(items: list[Item]) -> None:
    whole = [item for item in items if item[1]]
    assert count_of(whole) == len(list(datagrams(whole)))


def test_equal_neighbours_become_one_message() -> None:
    items = [(n * SLOT_SIZE, 100 if n < 9 else 40, 0) for n in range(10)]
    [(pieces, segment)] = pack(items, BASE, MAX_DATAGRAM)
    assert segment == 100
    assert pieces[:4] == [BASE, 100, BASE + SLOT_SIZE, 100]


class FakeRecipient:
    """A Recipient whose socket does not exist."""

    fd = -1

    def __init__(self) -> None:
        self.limit = MAX_DATAGRAM
        self.seen: list[tuple[int | None, bool]] = []

    def failed(self, error: OSError, *, again: bool) -> bool:
        """Note it, and try once more."""
        self.seen.append((error.errno, again))
        return not again


def test_every_message_has_one_more_try_and_then_the_next_comes() -> None:
    recipient, memory = FakeRecipient(), Memory(100)
    Sender().post(recipient, [([memory.address, 10], 0), ([memory.address, 20], 0)])
    assert recipient.seen == [(errno.EBADF, False), (errno.EBADF, True)] * 2


@pytest.mark.parametrize(
    ("number", "limit"), [(errno.EMSGSIZE, 9), (errno.EINVAL, 9), (errno.EIO, 0)]
)
def test_a_segmented_message_that_cannot_go_is_cut_up(
    monkeypatch: pytest.MonkeyPatch, number: int, limit: int
) -> None:
    sent: list[list[int]] = []

    def send(outbox: Outbox, _: int, first: int) -> int:
        if outbox.segment(first):
            raise OSError(number, "")
        sent.append(outbox.pieces(first))
        return 1

    monkeypatch.setattr(Outbox, "send", send)
    recipient, at = FakeRecipient(), Memory(100).address
    Sender().post(recipient, [([at, 25], 10), ([at + 25, 5], 0)])
    assert sent == [[at, 10], [at + 10, 10], [at + 20, 5], [at + 25, 5]]
    assert (recipient.limit, recipient.seen) == (limit, [])
