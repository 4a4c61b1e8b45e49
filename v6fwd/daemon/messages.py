"""What supervisor and worker tell each other, and the way it is put into bytes.

Both are one program, one forked from the other, over a socket pair that nobody else has: so
messages are pickled, and need no second form.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

from v6fwd.model import Endpoint, Forward
from v6fwd.relay.counters import Snapshot

MAX_MESSAGE = 1 << 17
"""Bytes: a message stays below the default of net.core.wmem_max, 212,992, overhead included."""


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
    """Stop to listen; flows have `grace` seconds to finish. See Relay.close_forward."""

    listen: Endpoint
    shard: int
    grace: float
    take_queue: bool


@dataclass(frozen=True, slots=True)
class Drain:
    """Stop to listen everywhere, let flows finish for `grace` seconds, end."""

    grace: float
    take_queue: bool


@dataclass(frozen=True, slots=True)
class Hurry:
    """Cut the drain short."""


@dataclass(frozen=True, slots=True)
class Ask:
    """To be answered under the same number, behind all that came before."""

    number: int
    what: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A part of an answer."""

    number: int
    part: list[Any]
    last: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What a forward has done, unasked: what a supervisor knows should the worker be killed."""

    listen: str
    numbers: Snapshot


Message = Open | Change | Close | Drain | Hurry | Ask | Answer | Report


def to_bytes(message: Message) -> bytes:
    """For one packet."""
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


def from_bytes(data: bytes) -> Message:
    """Out of one packet."""
    message: Message = pickle.loads(data)
    return message
