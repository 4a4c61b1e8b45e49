"""The messages between supervisor and worker, as JSON: `["Report", listen, numbers]`.

A worker meets the world and may be taken over. So the supervisor reads plain data only, checks all
of it against a schema, and takes no descriptors. What a worker says is believed as far as the
counters of forwards that it serves.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from v6fwd.daemon.plain import MAX_TEXT, Read, field_readers, reader, to_plain
from v6fwd.model import Endpoint, Forward, IPNetwork, Mesh
from v6fwd.relay.counters import DURATIONS, Counters, Snapshot
from v6fwd.relay.udp.resources import UdpCounters

MAX_MESSAGE = 1 << 17
"""Bytes: a message stays below the default of net.core.wmem_max, 212,992, overhead included."""
PART = MAX_MESSAGE // 2
"""Bytes of items in one part of an answer; one more item fits in any case."""


_NO_MESH = Mesh()


class MessageError(Exception):
    """The other end sent what is no message; the text says why."""


@dataclass(frozen=True, slots=True)
class Open:
    """Serve this forward; a descriptor comes along."""

    forward: Forward
    shard: int


@dataclass(frozen=True, slots=True)
class Change:
    """Serve new flows like this."""

    forward: Forward
    shard: int


@dataclass(frozen=True, slots=True)
class Close:
    """Stop listening; flows may finish for `grace` seconds. See Relay.close_forward."""

    listen: Endpoint
    shard: int
    grace: float
    take_queue: bool


@dataclass(frozen=True, slots=True)
class Drain:
    """Stop listening everywhere, let flows finish for `grace` seconds, end."""

    grace: float
    take_queue: bool


@dataclass(frozen=True, slots=True)
class Hurry:
    """Cut the drain short."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Answer under the same number, after all earlier messages.

    "end" ends the flows of clients in `networks` at forwards in `listens`; of all, where one of
    them is empty.
    """

    number: int
    what: str
    networks: tuple[IPNetwork, ...] = ()
    listens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """A part of an answer. Its items are plain, and checked by whoever asked."""

    number: int
    part: list[Any]
    last: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What a forward has done, sent unasked: all that is known if the worker is killed."""

    listen: str
    numbers: Snapshot


@dataclass(frozen=True, slots=True)
class Sought:
    """Flows of a service look for other tasks than those that the worker knows."""

    listen: str


@dataclass(frozen=True, slots=True)
class UseHelper:
    """Have a helper do what needs privileges; its socket comes along."""


@dataclass(frozen=True, slots=True)
class Permit:
    """To a helper: serve what the forward at `listen` takes."""

    listen: str
    target: Endpoint
    netns: str
    store: str
    bits: int
    mesh: Mesh = _NO_MESH


@dataclass(frozen=True, slots=True)
class Revoke:
    """To a helper: the forward is closed, or needs no helper any more."""

    listen: str


Message = (
    Open
    | Change
    | Close
    | Drain
    | Hurry
    | Ask
    | UseHelper
    | Permit
    | Revoke
    | Answer
    | Report
    | Sought
)

_WORKERS = (Open, Change, Close, Drain, Hurry, Ask, UseHelper)
_TO_WORKER = {kind.__name__: reader(kind) for kind in _WORKERS}
_TO_HELPER = {kind.__name__: reader(kind) for kind in (Permit, Revoke)}


def to_bytes(message: Message) -> bytes:
    """Encode one packet."""
    kind = type(message).__name__
    return json.dumps([kind, to_plain(message)], separators=(",", ":")).encode()


def read_by_worker(data: bytes) -> Message:
    """Decode a packet of the supervisor's. Raises MessageError."""
    return _one_of(_TO_WORKER, data)


def read_by_helper(data: bytes) -> Message:
    """Decode a packet of the supervisor's. Raises MessageError."""
    return _one_of(_TO_HELPER, data)


def read_nothing(_: bytes) -> Message:
    """Helpers have nothing to say. Raises MessageError."""
    raise MessageError("a helper spoke")


def _one_of(known: Mapping[str, Read], data: bytes) -> Message:
    kind, content = _packet(data)
    if kind not in known:
        raise MessageError(f"unknown message {kind!r}")
    return _checked(known[kind], content)  # type: ignore[no-any-return]


def read_by_supervisor(data: bytes) -> Message:
    """Decode a packet of a worker's. Raises MessageError."""
    kind, content = _packet(data)
    if kind == "Report" and type(content) is list and len(content) == 2:
        return Report(_checked(_text, content[0]), _checked(snapshot, content[1]))
    if kind == "Answer" and type(content) is list and len(content) == 3:
        number, part, last = content
        if type(part) is list and type(last) is bool:
            return Answer(_checked(reader(int), number), part, last)
    if kind == "Sought" and type(content) is list and len(content) == 1:
        return Sought(_checked(_text, content[0]))
    raise MessageError("neither a report nor an answer")


def _packet(data: bytes) -> tuple[str, Any]:
    try:
        packet = json.loads(data)
    except (ValueError, RecursionError):
        raise MessageError("not JSON") from None
    if type(packet) is not list or len(packet) != 2 or type(packet[0]) is not str:
        raise MessageError("not a message")
    return packet[0], packet[1]


def _checked(read: Read, value: Any) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise MessageError(str(error)) from None


# ---- answers ---------------------------------------------------------------------------------


def answers(number: int, items: Iterable[Any]) -> Iterator[Answer]:
    """Split items into parts that fit into a message; the last part says so."""
    part: list[Any] = []
    size = 0
    for item in items:
        part.append(item)
        size += len(json.dumps(item))
        if size > PART:
            yield Answer(number, part, last=False)
            part, size = [], 0
    yield Answer(number, part, last=True)


def read_items(what: str, part: list[Any], listens: Container[str]) -> list[Any]:
    """Check the items of an answer to `what`, about forwards in `listens`. Raises MessageError."""
    read = _ITEMS.get(what)
    if read is None:
        raise MessageError(f"items in an answer to {what!r}")
    items = [_checked(read, item) for item in part]
    for item in items:
        listen = item["listen"] if isinstance(item, dict) else item[0]
        if listen not in listens:
            raise MessageError("about a forward that it does not serve")
    return items


def snapshot(value: Any) -> Snapshot:
    """Check the counters of a forward. Raises ValueError."""
    numbers = dict(value) if type(value) is dict else {}
    udp = numbers.pop("udp", None)
    checked = _mapping(numbers, _COUNTERS)
    if len(checked["durations"]) != len(DURATIONS) + 1:
        raise ValueError("not as many durations as there are buckets")
    if checked["ended"] > checked["flows"]:
        raise ValueError("more flows ended than began")
    return checked if udp is None else {**checked, "udp": _mapping(udp, _UDP_COUNTERS)}


def _mapping(value: Any, readers: Mapping[str, Read]) -> dict[str, Any]:
    if type(value) is not dict or value.keys() != readers.keys():
        raise ValueError("not the fields that are expected")
    return {name: read(value[name]) for name, read in readers.items()}


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > MAX_TEXT or not value.isprintable():
        raise ValueError("not a text")
    return value


def _flow(value: Any) -> dict[str, Any]:
    return _mapping(value, _FLOW)


def _numbered(value: Any) -> tuple[str, Snapshot]:
    if type(value) is not list or len(value) != 2:
        raise ValueError("not a forward and its counters")
    return _text(value[0]), snapshot(value[1])


def _count(value: Any) -> tuple[str, int]:
    if type(value) is not list or len(value) != 2:
        raise ValueError("not a forward and a number")
    return _text(value[0]), reader(int)(value[1])


_COUNTERS = field_readers(Counters)
_UDP_COUNTERS = field_readers(UdpCounters)
_FLOW: dict[str, Read] = {
    "client": _text,
    "client_port": reader(int),
    "listen": _text,
    "target": _text,
    "bytes_up": reader(int),
    "bytes_down": reader(int),
    "seconds": reader(float),
}
"""See Relay.flows_now."""
_ITEMS: dict[str, Read] = {
    "flows": _flow,
    "snapshot": _numbered,
    "bans": _count,
    "end": _count,
}
