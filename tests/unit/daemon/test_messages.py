"""Messages between supervisor and worker: what comes back, and what a worker cannot say."""

from __future__ import annotations

import json
import pickle
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6fwd.daemon.messages import (
    MAX_MESSAGE,
    Answer,
    Ask,
    Change,
    Close,
    Drain,
    Hurry,
    Message,
    MessageError,
    Open,
    Report,
    Sought,
    answers,
    read_by_supervisor,
    read_by_worker,
    read_items,
    snapshot,
    to_bytes,
)
from v6fwd.daemon.plain import reader
from v6fwd.model import (
    ClientIP,
    Endpoint,
    Forward,
    Guard,
    Limits,
    OnOpaque,
    Protocol,
    Transparent,
    TransparentFallback,
    UdpProxy,
    parse_networks,
)
from v6fwd.relay.counters import Counters
from v6fwd.relay.udp.resources import UdpCounters

LISTEN = "[::]:80"
PLAIN = Forward(Endpoint("::", 80), Endpoint("name", 80))
EVERYTHING = Forward(
    Endpoint("fe80::1%eth0", 53, protocol=Protocol.UDP),
    Endpoint("", 0, "/run/a socket"),
    ClientIP.TRANSPARENT,
    parse_networks("10.0.0.0/8,fd00::/8"),
    UdpProxy.FIRST,
    232,
    parse_networks("::/0"),
    keep_underscores=True,
    on_opaque=OnOpaque.PASS,
    limits=Limits(1.5, 2, 3, 4, 5, 6, 7, 20_000, 8),
    guard=Guard(parse_networks("192.0.2.1"), (), 3, 0.5, 128),
    transparent=Transparent("name", TransparentFallback.NONE, 128, "/a/file"),
)
COUNTERS = Counters(flows=3, ended=2, seconds=1.5, ends={"closed": 2}).snapshot()
FLOW = {
    "client": "2001:db8::1",
    "client_port": 1,
    "listen": LISTEN,
    "target": "172.17.0.2:80",
    "bytes_up": 1,
    "bytes_down": 2,
    "seconds": 0.5,
}


@pytest.mark.parametrize(
    "message",
    [
        Open(PLAIN, 3),
        Open(EVERYTHING, 0),
        Change(EVERYTHING, 1),
        Close(EVERYTHING.listen, 1, 0.0, take_queue=False),
        Drain(1.5, take_queue=True),
        Hurry(),
        Ask(1, "flows"),
        Ask(2, "end", (ip_network("2001:db8::/64"), ip_network("192.0.2.7")), ("[::]:80",)),
    ],
)
def test_what_a_worker_is_told(message: Message) -> None:
    assert read_by_worker(to_bytes(message)) == message


@pytest.mark.parametrize(
    "message", [Report(LISTEN, COUNTERS), Sought(LISTEN), Answer(7, [[LISTEN, {}]], True)]
)
def test_what_a_supervisor_is_told(message: Message) -> None:
    assert read_by_supervisor(to_bytes(message)) == message


def test_a_pickle_is_no_message() -> None:
    """It would run code in the supervisor."""

    class Evil:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("code of a worker ran in the supervisor",))

    for read in (read_by_supervisor, read_by_worker):
        with pytest.raises(MessageError, match=r"^not JSON$"):
            read(pickle.dumps(Evil()))


@pytest.mark.parametrize("message", [Open(PLAIN, 0), Ask(1, "flows"), Hurry(), Drain(0, True)])
def test_a_worker_gives_no_orders(message: Message) -> None:
    with pytest.raises(MessageError, match=r"^neither a report nor an answer$"):
        read_by_supervisor(to_bytes(message))


def changed(**values: object) -> dict[str, Any]:
    """Counters that are wrong in one field."""
    return {**COUNTERS, **values}


BAD_COUNTERS: list[Any] = [
    None,
    [],
    {},
    changed(more=1),
    {name: value for name, value in COUNTERS.items() if name != "flows"},
    changed(flows=-1),
    changed(flows=1.0),
    changed(flows=True),
    changed(flows="1"),
    changed(flows=1 << 63),
    changed(seconds=-1.0),
    changed(seconds=float("nan")),
    changed(seconds=float("inf")),
    changed(ended=4),
    changed(durations=[0] * 7),
    changed(durations=[0] * 9),
    changed(durations=["0"] * 8),
    changed(ends={"closed": -1}),
    changed(ends={"closed": {}}),
    changed(ends=[]),
    changed(ends={"a\nb": 1}),
    changed(ends={"\ud800": 1}),
    changed(ends={"x" * 257: 1}),
    changed(ends={str(number): 1 for number in range(257)}),
    changed(udp={}),
    changed(udp=1),
    changed(udp={**dict.fromkeys(UdpCounters.__dataclass_fields__, 0), "full": -1}),
]


@pytest.mark.parametrize("numbers", BAD_COUNTERS, ids=lambda value: repr(value)[:30])
def test_counters_that_cannot_be(numbers: Any) -> None:
    with pytest.raises(MessageError):
        read_by_supervisor(json.dumps(["Report", [LISTEN, numbers]]).encode())
    with pytest.raises(MessageError):
        read_items("snapshot", [[LISTEN, numbers]], {LISTEN})


def test_counters_of_udp() -> None:
    numbers = {**COUNTERS, "udp": dict.fromkeys(UdpCounters.__dataclass_fields__, 5)}
    assert snapshot(numbers) == numbers


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b"9" * 5000,
        b'"Report"',
        b"[]",
        b'["Report"]',
        b'["Sought",[]]',
        b'["Sought",[7]]',
        b'["Sought",["[::]:1",1]]',
        b'[["Report"],[]]',
        b'["Report",[]]',
        b'["Report",{}]',
        b'["Answer",[0,{},true]]',
        b'["Answer",[0,[],1]]',
        b'["Answer",["0",[],true]]',
        b'["Answer",[-1,[],true]]',
        b'["Answer",[0,[],true,0]]',
        json.dumps(["Report", ["x\x1b[2J", COUNTERS]]).encode(),
        json.dumps(["Report", ["x" * 10_000, COUNTERS]]).encode(),
    ],
    ids=lambda packet: repr(packet)[:40],
)
def test_packets_that_are_refused(packet: bytes) -> None:
    with pytest.raises(MessageError):
        read_by_supervisor(packet)


@given(st.binary(max_size=200))
def test_rubbish_is_refused_and_nothing_else_happens(data: bytes) -> None:
    for read in (read_by_supervisor, read_by_worker):
        with pytest.raises(MessageError):
            read(data)


def test_items_are_of_forwards_that_are_known() -> None:
    assert read_items("flows", [FLOW], {LISTEN}) == [FLOW]
    assert read_items("snapshot", [[LISTEN, COUNTERS]], {LISTEN}) == [(LISTEN, COUNTERS)]
    for what, item in (("flows", FLOW), ("snapshot", [LISTEN, COUNTERS])):
        with pytest.raises(MessageError, match="a forward that it does not serve"):
            read_items(what, [item], {"[::]:81"})
    with pytest.raises(MessageError, match="items in an answer to 'settled'"):
        read_items("settled", [1], {LISTEN})


@pytest.mark.parametrize(
    "change",
    [{"client": 1}, {"client": "\x1b[2J"}, {"client_port": -1}, {"seconds": None}, {"more": 1}],
    ids=str,
)
def test_a_flow_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        read_items("flows", [{**FLOW, **change}], {LISTEN})


def test_an_answer_is_split_by_size() -> None:
    numbers = {**COUNTERS, "ends": {f"{number:0200}": number for number in range(100)}}
    parts = list(answers(3, [[LISTEN, numbers]] * 50))
    assert len(parts) > 10
    assert all(len(to_bytes(part)) < MAX_MESSAGE for part in parts)
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert sum(len(part.part) for part in parts) == 50
    assert list(answers(3, ())) == [Answer(3, [], last=True)]


def test_only_what_is_declared_is_read() -> None:
    with pytest.raises(TypeError, match="is not sent"):
        reader(object)
