"""What the UDP forwards of a process share, and what each of them counts."""

from __future__ import annotations

import copy
from dataclasses import astuple

from v6fwd.log import Log
from v6fwd.model.lean import dataclass
from v6fwd.relay.clients import Clients
from v6fwd.relay.deadlines import Deadlines
from v6fwd.relay.limits.bans import Bans
from v6fwd.relay.limits.hops import Hops
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.udp.gso import Sender
from v6fwd.relay.udp.mmsg import Inbox, Memory
from v6fwd.relay.udp.own_listeners import OwnListeners
from v6fwd.relay.udp.replies import Replies
from v6fwd.relay.udp.session_table import Sessions


@dataclass(slots=True)
class UdpCounters:
    """Sessions made by a forward, and datagrams that did not arrive, by reason."""

    sessions: int = 0
    """Sessions that were made."""
    refused: int = 0
    """Times that the target was not there; each time the datagram was sent once more."""
    too_large: int = 0
    """Above 65,507 bytes with their header, or above what the path carries."""
    full: int = 0
    """Full buffers of the kernel (EAGAIN, ENOBUFS, ENOMEM)."""
    failed: int = 0
    """Other errors of the kernel."""
    no_header: int = 0
    """From a trusted client, without a readable PROXY header."""
    no_room: int = 0
    """From a new client, without a descriptor for it or with too many others pending."""

    def activity(self) -> int:
        """A number that changes with any of the counters."""
        return sum(astuple(self))


SILENCE = 2.0
"""Seconds for the first answer to a session, before its target is looked for elsewhere."""


class UdpResources:
    """What all UDP forwards of a process share; the sessions only those with one timeout."""

    def __init__(
        self,
        reactor: Reactor,
        log: Log,
        sessions: Sessions,
        clients: Clients,
        hops: Hops,
        *,
        log_flows: bool,
        bans: Bans | None = None,
    ) -> None:
        self.reactor = reactor
        self.log = log
        self.sessions = sessions
        self.clients = clients
        self.hops = hops
        self.log_flows = log_flows
        self.bans = bans if bans is not None else Bans()
        self.inbox = Inbox()
        self.sender = Sender()
        self.replies = Replies(reactor, self.sender)
        self.own = OwnListeners()
        self.silences = Deadlines(reactor, SILENCE)
        """Sessions with a target that has a name, which may have moved, until it has answered."""
        self.scratch = Memory(256)  # a PROXY header without TLVs has 52 bytes

    def with_sessions(self, sessions: Sessions) -> UdpResources:
        """The same but for another table of sessions."""
        resources = copy.copy(self)
        resources.sessions = sessions
        return resources
