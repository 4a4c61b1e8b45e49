"""looping: which flows come from a flow of the same forward."""

from __future__ import annotations

from dataclasses import dataclass

from v6fwd.model import Address, Endpoint, Forward
from v6fwd.relay.limits.loop_watch import DEPTH, Link, looping


@dataclass(eq=False)
class Flow:
    """A flow of a forward that listens on a port."""

    forward: Forward


def at(port: int) -> Address:
    return Address(bytes(15) + b"\1", port)


def chain(*listens: int) -> list[tuple[Address, Address, Link]]:
    """A client, and a flow for each port listened on; each leads to the next one."""
    target = Endpoint("192.0.2.7", 80)
    return [
        (at(1000 + number), at(1001 + number), Flow(Forward(Endpoint("::", port), target)))
        for number, port in enumerate(listens)
    ]


def test_a_chain_is_no_loop() -> None:
    assert looping(chain(1, 2, 3)) == []


def test_clients_of_one_forward_are_no_loop() -> None:
    links = [*chain(1), (at(5), at(6), chain(1)[0][2])]
    assert looping(links) == []


def test_a_forward_to_itself() -> None:
    links = chain(1, 1, 1)
    assert looping(links) == [links[1][2], links[2][2]], "the first one may be a client's"


def test_a_circle_of_two() -> None:
    links = chain(1, 2, 1, 2)
    assert looping(links) == [links[2][2], links[3][2]]


def test_a_sample_with_a_gap() -> None:
    links = chain(1, 1, 1, 1)
    assert looping([links[0], links[2], links[3]]) == [links[3][2]]


def test_addresses_in_a_ring_end() -> None:
    first, *_ = chain(1)
    second = (first[1], first[0], chain(2)[0][2])
    assert looping([first, second]) == [first[2], second[2]]
    assert looping(chain(*range(2 * DEPTH))) == []
