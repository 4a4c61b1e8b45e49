"""Sessions by network of their client, to find the network that has most of them.

Whoever forges sources gets answers answered by a target that takes anything, as an echo or DNS
server does. What is left is how many networks it can forge sources of: where room is needed, the
network with most sessions gives one up.
"""

from __future__ import annotations

from itertools import islice

from v6fwd.model import Address
from v6fwd.model.lean import Generic, Protocol, TypeVar

PREFIX_V4, PREFIX_V6 = 3, 6
"""Bytes that tell networks apart: a /24, which is the least that is routed, and a /48."""
LOOKED_AT = 8
"""Sessions of a network of which the least recently used one goes; the others' turn comes later."""


class Member(Protocol):
    """What must be known of a session."""

    stamp: int
    """Grows with its use."""
    client: Address


M = TypeVar("M", bound=Member)


class Shares(Generic[M]):
    """A set of sessions, and the network with most of them, each step in constant time."""

    def __init__(self) -> None:
        self._groups: dict[bytes, M | dict[M, None]] = {}
        """By network; one session alone needs no dict, and most are alone."""
        self._sizes: dict[int, dict[bytes, None]] = {}
        """The networks that have so many sessions; those with one are not kept."""
        self._most = 1

    def add(self, session: M) -> None:
        """Count a session, which must not be in the set."""
        prefix = prefix_of(session.client)
        group = self._groups.get(prefix)
        if group is None:
            self._groups[prefix] = session
            return
        if not isinstance(group, dict):
            group = self._groups[prefix] = {group: None}
        group[session] = None
        self._resized(prefix, len(group) - 1, len(group))

    def remove(self, session: M) -> None:
        """Forget a session, which must be in the set."""
        prefix = prefix_of(session.client)
        group = self._groups[prefix]
        if isinstance(group, dict):
            del group[session]
            self._resized(prefix, len(group) + 1, len(group))
        if group is session or not group:
            del self._groups[prefix]

    def victim(self) -> M | None:
        """A session of the largest network, one of its least recently used.

        None where each network has one at most.
        """
        if self._most == 1:
            return None
        group = self._groups[next(iter(self._sizes[self._most]))]
        assert isinstance(group, dict)
        looked_at = list(islice(group, LOOKED_AT))
        victim = min(looked_at, key=lambda session: session.stamp)
        for session in looked_at:
            if session is not victim:
                del group[session]
                group[session] = None
        return victim

    def _resized(self, prefix: bytes, before: int, after: int) -> None:
        if before > 1:
            same = self._sizes[before]
            del same[prefix]
            if not same:
                del self._sizes[before]
        if after > 1:
            self._sizes.setdefault(after, {})[prefix] = None
        if after > self._most or self._most not in self._sizes:
            self._most = max(1, after)


def prefix_of(client: Address) -> bytes:
    """The bytes that tell the client's network from others."""
    packed = client.packed
    return packed[:PREFIX_V4] if len(packed) == 4 else packed[:PREFIX_V6]
