"""Requests of a worker to its helper and the answers, as packets.

Requests are JSON, `["look", netns, target, protocol, port]`, bytes in hexadecimal; for sockets,
struct packs them. Answers are JSON, `["ok", value]`, `["os", errno]` or
`["error", kind, text]`; a socket comes with the byte SOCKET. The helper believes nothing that it
reads here: a packet that cannot be read ends it, and with it the worker.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from v6fwd.client_ip.destination import Destination
from v6fwd.errors import NotPermittedError, RelayError
from v6fwd.model import Address, Protocol
from v6fwd.netns.netlink import Net
from v6fwd.relay.transparent.privileged import AheadRequest, NetnsView, SocketRequest

MAX_REQUEST = 8192
"""Bytes: a path and a few numbers."""
MAX_ANSWER = 1 << 17
"""Bytes: the addresses of a namespace."""
MOST = 64
"""Sockets in an answer; SCM_RIGHTS takes 253."""
SOCKET = b"\0"

_BOUND = struct.Struct("!cIBBHB16sB16sH")
"""Kind, epoch, UDP, pseudo, target's port, destination and its length, client and its length,
port; the name of the namespace follows."""
_KIND = b"S"
_AHEAD = struct.Struct("!cIBHB16sB")
"""Kind, epoch, pseudo, target's port, destination and its length, count; the name follows."""
_AHEAD_KIND = b"A"
_SIZES = (4, 16)


class WireError(Exception):
    """A packet that cannot be read."""


def pack_bound(request: SocketRequest) -> bytes:
    """Encode the request for a bound socket."""
    destination, client = request.destination, request.client
    head = _BOUND.pack(
        _KIND,
        request.epoch & 0xFFFFFFFF,
        request.protocol is Protocol.UDP,
        destination.is_pseudo,
        request.port,
        len(destination.address),
        destination.address,
        len(client.packed),
        client.packed,
        client.port,
    )
    return head + request.netns.encode()


def is_bound(packet: bytes) -> bool:
    """Whether it is the request for a bound socket."""
    return packet[:1] == _KIND


def read_bound(packet: bytes) -> SocketRequest:
    """Decode the request for a bound socket. Raises WireError."""
    try:
        _, epoch, udp, pseudo, port, size, address, client_size, client, client_port = (
            _BOUND.unpack_from(packet)
        )
        netns = packet[_BOUND.size :].decode()
    except (struct.error, UnicodeDecodeError):
        raise WireError("a request that is cut") from None
    if size not in _SIZES or client_size not in _SIZES or udp > 1 or pseudo > 1:
        raise WireError("a request that cannot be")
    return SocketRequest(
        netns,
        epoch,
        Protocol.UDP if udp else Protocol.TCP,
        Destination(address[:size], bool(pseudo)),
        port,
        Address(client[:client_size], client_port),
    )


def pack_ahead(request: AheadRequest) -> bytes:
    """Encode the request for sockets ahead."""
    destination = request.destination
    head = _AHEAD.pack(
        _AHEAD_KIND,
        request.epoch & 0xFFFFFFFF,
        destination.is_pseudo,
        request.port,
        len(destination.address),
        destination.address,
        request.number,
    )
    return head + request.netns.encode()


def is_ahead(packet: bytes) -> bool:
    """Whether it is the request for sockets ahead."""
    return packet[:1] == _AHEAD_KIND


def read_ahead(packet: bytes) -> AheadRequest:
    """Decode the request for sockets ahead. Raises WireError."""
    try:
        _, epoch, pseudo, port, size, address, count = _AHEAD.unpack_from(packet)
        netns = packet[_AHEAD.size :].decode()
    except (struct.error, UnicodeDecodeError):
        raise WireError("a request that is cut") from None
    if size not in _SIZES or pseudo > 1:
        raise WireError("a request that cannot be")
    return AheadRequest(netns, epoch, Destination(address[:size], bool(pseudo)), port, count)


def pack(*words: Any) -> bytes:
    """Encode any other request, or an answer."""
    return json.dumps(words, default=_plain).encode()


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{value!r} is not sent")


def read(packet: bytes, kinds: dict[str, tuple[type, ...]]) -> tuple[str, list[Any]]:
    """Decode a request of one of these kinds, with arguments of these types. Raises WireError."""
    try:
        kind, *words = json.loads(packet)
        expected = kinds[kind]
        if [type(word) for word in words] != [str if each is bytes else each for each in expected]:
            raise ValueError
        pairs = zip(words, expected, strict=True)
        return kind, [bytes.fromhex(word) if each is bytes else word for word, each in pairs]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise WireError("a request that cannot be read") from None


def pack_error(error: Exception) -> bytes:
    """Encode an error as an answer."""
    if isinstance(error, RelayError):
        kind = "permission" if isinstance(error, NotPermittedError) else "relay"
        return pack("error", kind, str(error))
    if isinstance(error, OSError) and error.errno:
        return pack("os", error.errno)
    return pack("error", "relay", f"internal error: {error!r}")


def pack_view(view: NetnsView) -> bytes:
    """Encode what somebody saw in a namespace."""
    nets = [[net.packed, net.length] for net in view.addresses]
    return pack("ok", [view.epoch, nets, [list(pair) for pair in view.listening]])


def read_answer(packet: bytes) -> Any:
    """Decode an answer. Raises the error that it tells: RelayError or OSError."""
    try:
        answer = json.loads(packet)
    except (ValueError, RecursionError):
        answer = None
    match answer:
        case ["ok", value]:
            return value
        case ["os", int(number)]:
            raise OSError(number, "")
        case ["error", "permission", str(text)]:
            raise NotPermittedError(text)
        case ["error", _, str(text)]:
            raise RelayError(text)
    raise RelayError("an answer that cannot be read")


def read_view(value: Any) -> NetnsView:
    """Decode what somebody saw in a namespace. Raises RelayError."""
    try:
        epoch, nets, listening = value
        return NetnsView(
            int(epoch),
            tuple(Net(bytes.fromhex(packed), int(length)) for packed, length in nets),
            tuple((bytes.fromhex(packed), bool(v6_only)) for packed, v6_only in listening),
        )
    except (TypeError, ValueError, OverflowError):
        raise RelayError("an answer that cannot be read") from None
