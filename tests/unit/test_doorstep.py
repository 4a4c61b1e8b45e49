"""The doorstep: datagrams of new clients keep, in order and within bounds."""

from __future__ import annotations

from v6fwd.client_ip.proxy_read import Header
from v6fwd.relay.doorstep import MOST_BYTES, Doorstep
from v6fwd.relay.mmsg import SLOT_SIZE, SLOTS
from v6fwd.relay.trains import Item


def payload() -> memoryview:
    return memoryview(bytearray(SLOTS * SLOT_SIZE))


def put(step: Doorstep, key: bytes, *datagrams: bytes, segment: int = 0) -> bool:
    memory = payload()
    items: list[Item] = []
    for number, data in enumerate(datagrams):
        memory[number * SLOT_SIZE : number * SLOT_SIZE + len(data)] = data
        items.append((number * SLOT_SIZE, len(data), segment))
    return step.add(key, b"info", Header(16), memory, items)


def test_first_come_first_served() -> None:
    step, memory = Doorstep(), payload()
    assert not step
    assert put(step, b"a", b"one", b"")
    assert put(step, b"b", b"two", segment=2)
    assert put(step, b"a", b"three")
    assert len(step) == 2
    assert b"a" in step
    first = step.take(memory)
    assert first is not None
    assert (first.key, first.info, first.claim) == (b"a", b"info", Header(16))
    assert [bytes(memory[at : at + size]) for at, size, _ in first.items] == [b"one", b"", b"three"]
    second = step.take(memory)
    assert second is not None
    assert second.items == [(0, 3, 2)]
    assert step.take(memory) is None


def test_bounds() -> None:
    step = Doorstep()
    assert put(step, b"a", *[b""] * SLOTS)
    assert not put(step, b"a", b"")
    big = bytes(60_000)
    kept = sum(put(step, b"%d" % number, big) for number in range(100))
    assert kept == (MOST_BYTES - SLOTS * 256) // (60_000 + 256)
    assert not put(step, b"z", big)
    assert b"z" not in step
    while step.take(payload()):
        pass
    assert put(step, b"z", big)
