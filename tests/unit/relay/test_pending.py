"""Pending clients: their datagrams are kept, in order and within bounds."""

from __future__ import annotations

from v6fwd.client_ip.proxy.read import Header
from v6fwd.relay.udp.gso import Item
from v6fwd.relay.udp.mmsg import SLOT_SIZE, SLOTS
from v6fwd.relay.udp.pending import MOST_BYTES, MOST_EACH, PendingClients


def payload() -> memoryview:
    return memoryview(bytearray(SLOTS * SLOT_SIZE))


def put(step: PendingClients, key: bytes, *datagrams: bytes, segment: int = 0) -> bool:
    memory = payload()
    items: list[Item] = []
    for number, data in enumerate(datagrams):
        memory[number * SLOT_SIZE : number * SLOT_SIZE + len(data)] = data
        items.append((number * SLOT_SIZE, len(data), segment))
    return step.add(key, b"info", Header(16), memory, items)


def test_first_come_first_served() -> None:
    step, memory = PendingClients(), payload()
    assert not step
    assert put(step, b"a", b"one", b"")
    assert put(step, b"b", b"two", segment=2)
    assert put(step, b"a", b"three")
    assert len(step) == 2
    assert b"a" in step
    first = step.take(memory)
    assert first is not None
    assert (first.key, first.info, first.header) == (b"a", b"info", Header(16))
    assert [bytes(memory[at : at + size]) for at, size, _ in first.items] == [b"one", b"", b"three"]
    second = step.take(memory)
    assert second is not None
    assert second.items == [(0, 3, 2)]
    assert step.take(memory) is None


def test_more_than_fits_at_once() -> None:
    """A burst of a new client comes out in parts, in order, before anybody else's."""
    step, memory = PendingClients(), payload()
    sent = [b"%d" % number for number in range(3 * SLOTS - 1)]
    for at in range(0, len(sent), 40):
        assert put(step, b"a", *sent[at : at + 40])
    assert put(step, b"b", b"other")
    came = []
    for more in (True, True, False):
        waiting = step.take(memory)
        assert waiting is not None
        assert (waiting.key, waiting.more) == (b"a", more)
        came += [bytes(memory[at : at + size]) for at, size, _ in waiting.items]
    assert came == sent
    last = step.take(memory)
    assert last is not None
    assert (last.key, last.more, len(step)) == (b"b", False, 0)


def test_bounds() -> None:
    step = PendingClients()
    for _ in range(MOST_EACH // SLOTS):
        assert put(step, b"a", *[b""] * SLOTS)
    assert not put(step, b"a", b"")
    big = bytes(60_000)
    kept = sum(put(step, b"%d" % number, big) for number in range(100))
    assert kept == (MOST_BYTES - MOST_EACH * 256) // (60_000 + 256)
    assert not put(step, b"z", big)
    assert b"z" not in step
    while step.take(payload()):
        pass
    assert put(step, b"z", big)


def test_who_is_refused_leaves_nothing() -> None:
    step, memory = PendingClients(), payload()
    for _ in range(2):
        assert put(step, b"a", *[b"x" * 1000] * SLOTS)
    waiting = step.take(memory)
    assert waiting is not None
    assert waiting.more
    step.forget(b"a")
    step.forget(b"a")
    assert not step
    assert step._bytes == 0
