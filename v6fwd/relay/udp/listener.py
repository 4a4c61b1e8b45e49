"""UDP forwards: the listener, whose clients are told apart by address, and what they share.

The listener is level-triggered and takes one batch an event, so that a flood has its turn and
no more. `demux` says whose each datagram of a batch is.
Making a session costs ten times what a datagram of a known one does: after NEW_AT_ONCE of them
the remaining new clients of the batch wait (`pending`) while everybody else is served.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Collection
from typing import Any

from v6fwd.client_ip.proxy.read import Header
from v6fwd.client_ip.proxy.write import datagram_header_writer
from v6fwd.client_ip.trust import TrustedNetworks
from v6fwd.errors import ClientRefusedError, reason
from v6fwd.model import Address, Endpoint, Forward
from v6fwd.relay.admission import NOT_PRESERVED, REFUSED, UNCOUNTED, admission_of, tell_refused
from v6fwd.relay.counters import Counters, count
from v6fwd.relay.ends import End
from v6fwd.relay.target import Target, tell_failed
from v6fwd.relay.udp.demux import Demux
from v6fwd.relay.udp.gso import Item, count_of
from v6fwd.relay.udp.mmsg import SLOT_SIZE
from v6fwd.relay.udp.pending import PendingClients, Waiting
from v6fwd.relay.udp.resources import UdpCounters, UdpResources
from v6fwd.relay.udp.session import UdpSession
from v6fwd.relay.udp_sockets import family_of

NEW_AT_ONCE = 16
"""Sessions made before everybody else gets a turn: about half a millisecond."""

MANY = 4
"""Events found at once from which on a listener lets every other one of its own go by.

It comes back with the next events: who has that much to do gathers larger batches, in which more
datagrams of one client are neighbours and become a train.
"""

_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_FULL = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}


class UdpForward:
    """A Forward of datagrams at work."""

    def __init__(
        self, forward: Forward, target: Target, sock: socket.socket, resources: UdpResources
    ) -> None:
        """Take over a listening socket that `prepare_udp_listener` has seen."""
        self.family = family_of(sock)
        self.fd = sock.fileno()
        self.counters = UdpCounters()
        self.flows = Counters()
        self._socket = sock
        self._port = int(sock.getsockname()[1])
        self._reads = True
        self._sessions: dict[bytes, UdpSession] = {}
        self._demux = Demux(self.family, self._refuse)
        self.set_up(forward, target, resources)
        self._pending = PendingClients()
        self._takes_new_clients = True
        self._gathers = False
        resources.reactor.watch(self.fd, select.EPOLLIN, self)

    def set_up(self, forward: Forward, target: Target, resources: UdpResources) -> None:
        """Serve new clients like this from now on; the sessions there are stay as they began."""
        self.forward = forward
        self.target = target
        for session in list(self._sessions.values()):
            session.move_table(resources.sessions)
        self.resources = resources
        self._write_header = target.header_writer(datagram_header_writer(forward.client_ip))
        self._demux.trusted = (
            TrustedNetworks(forward.accept_proxy) if forward.accept_proxy else None
        )
        self._admission = admission_of(
            forward, resources.clients, self.flows.refused, resources.log
        )

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        return self.forward.listen

    @property
    def address(self) -> Any:
        """The bound socket address."""
        return self._socket.getsockname()

    def fileno(self) -> int:
        """The descriptor."""
        return self.fd

    # -- datagrams of clients --

    def on_event(self, mask: int) -> None:  # noqa: ARG002 - reading tells all
        """Take a batch and pass it on."""
        if self.resources.reactor.at_once > MANY and not self._gathers:
            self._gathers = True
            return
        self._gathers = False
        try:
            count = self.resources.inbox.receive(self.fd)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                self.lost(error)
            return
        table, sessions = self.resources.sessions, self._sessions
        made = self.counters.sessions
        for key, items in self._demux.sort(self.resources.inbox, count).items():
            session = sessions.get(key)
            if session is None:
                fresh = self.counters.sessions - made < NEW_AT_ONCE
                session = self._new_client(key, items, fresh=fresh)
                if session is None:
                    continue
            elif session.stamp != table.stamp:
                table.touch(session)
            try:
                session.send(items)
            except Exception as error:
                session.on_exception(error)
        self._demux.claims.clear()

    def _refuse(self, key: bytes, why: str) -> None:
        self.counters.no_header += 1
        self.flows.header_refused += 1
        self._tell_refused(key, why, "header")

    def _refuse_to_show(self, key: bytes, error: ClientRefusedError) -> None:
        count(self.flows.refused, NOT_PRESERVED)
        self._tell_refused(key, str(error), "client")

    def _tell_refused(self, key: bytes, why: str, what: str) -> None:
        tell_refused(self.resources.log, what, self.family.client(key), self.forward.listen, why)

    # -- new clients --

    def _new_client(self, key: bytes, items: list[Item], *, fresh: bool) -> UdpSession | None:
        """A session for a new client, or None: it waits in `pending`, or is not served."""
        if not self._takes_new_clients:
            return None
        inbox = self.resources.inbox
        number = items[0][0] // SLOT_SIZE
        control_size = inbox.control_sizes(number + 1)[number]
        info = self.family.read(inbox.meta_of(number), 0, control_size)[1]
        claim = self._demux.claims.get(key)
        if fresh and key not in self._pending:
            slot = self._slot(key, claim)
            if slot == REFUSED:
                return None
            try:
                session = self._begin(key, info, claim, slot)
            except ClientRefusedError:
                return None
            if session is not None:
                return session
        if not self._pending:
            self.resources.reactor.resume_later(self)
        if not self._pending.add(key, info, claim, inbox.payload, items):
            self.counters.no_room += count_of(items)
        return None

    def _slot(self, key: bytes, claim: Header | None) -> int:
        """What Admission says of a new client."""
        if self._admission is None:
            return UNCOUNTED
        try:
            return self._admission.admit(self._ends(key, claim)[0])
        except Exception as error:
            self.on_exception(error)
            return REFUSED

    def _begin(self, key: bytes, info: bytes, claim: Header | None, slot: int) -> UdpSession | None:
        """Make a session; None, with a word in the log, where that fails.

        Raises ClientRefusedError where it would fail again.
        """
        resources = self.resources
        resources.sessions.make_room()
        try:
            session = self._session(key, info, claim, slot)
        except Exception as error:
            if slot >= 0:
                resources.clients.leave(slot)
            if isinstance(error, ClientRefusedError):
                self._refuse_to_show(key, error)
                raise
            self._begin_failed(error)
            return None
        self._sessions[key] = session
        resources.sessions.add(session)
        self.counters.sessions += 1
        self.flows.flows += 1
        return session

    def _ends(self, key: bytes, claim: Header | None) -> tuple[Address, Address]:
        """Who the client is, and which address it wrote to."""
        if claim is not None and claim.source is not None and claim.destination is not None:
            return claim.source, claim.destination
        return self.family.client(key), self.family.local(key, self._port)

    def _session(self, key: bytes, info: bytes, claim: Header | None, slot: int) -> UdpSession:
        source, destination = self._ends(key, claim)
        write = self._write_header
        header = write(source, destination) if write is not None else b""
        return UdpSession(self, key, self.family.block(key, info), header, source, slot)

    def _begin_failed(self, error: Exception) -> None:
        log = self.resources.log
        if not isinstance(error, OSError):
            self.on_exception(error)
        elif error.errno in _NO_ROOM:
            self.resources.sessions.evict()
            why = reason(error)
            log.limited(
                "full udp",
                "full",
                f"no room for more UDP sessions: {why} ({len(self.resources.sessions)} are there)",
                burst=1,
                why=why,
                sessions=len(self.resources.sessions),
            )
        else:
            self._target_failed(error)

    def resume(self) -> None:
        """Serve pending clients, some of them at a time."""
        pending, payload = self._pending, self.resources.inbox.payload
        for _ in range(NEW_AT_ONCE):
            waiting = pending.take(payload)
            if waiting is None:
                return
            try:
                session = self._session_of(waiting)
            except ClientRefusedError:
                pending.forget(waiting.key)
                continue
            self._let_in(session, waiting)
            while waiting.more:  # all of them now: what comes next must not overtake them
                rest = pending.take(payload)
                assert rest is not None
                waiting = rest
                self._let_in(session, waiting)
        if pending:
            self.resources.reactor.resume_later(self)

    def _session_of(self, waiting: Waiting) -> UdpSession | None:
        """The session of a pending client; None where there is none to be had.

        Raises ClientRefusedError.
        """
        session = self._sessions.get(waiting.key)
        if session is not None or not self._takes_new_clients:
            return session
        slot = self._slot(waiting.key, waiting.claim)
        if slot == REFUSED:
            raise ClientRefusedError
        return self._begin(waiting.key, waiting.info, waiting.claim, slot)

    def _let_in(self, session: UdpSession | None, waiting: Waiting) -> None:
        if session is None:
            self.counters.no_room += count_of(waiting.items)
            return
        try:
            session.send(waiting.items)
        except Exception as error:
            session.on_exception(error)

    # -- what sessions need --

    def forget(self, session: UdpSession) -> None:
        """The session has ended."""
        self._sessions.pop(session.key, None)

    def lost(self, error: OSError) -> None:
        """The kernel did not take a datagram."""
        if error.errno == errno.EMSGSIZE:
            self.counters.too_large += 1
        elif error.errno in _FULL:
            self.counters.full += 1
        else:
            self.counters.failed += 1

    def too_large(self, session: UdpSession, count: int) -> None:
        """Datagrams that have no room for the header that the target wants."""
        self.counters.too_large += count
        client, listen = self.family.client(session.key), self.forward.listen
        self.resources.log.limited(
            f"too large {listen}",
            "too-large",
            f"dropped a datagram of {client} on {listen}: too large with its PROXY header",
            client=client,
            listen=listen,
        )

    def target_gone(self, session: UdpSession, error: OSError) -> None:
        """A session's target is not there: look for it elsewhere."""
        self._target_failed(error)
        # What a reload has put in its place will do, unless clients are shown there in another way.
        same = session.forward.client_ip is self.forward.client_ip
        target = self.target if same else session.target
        target.was_refused(session.address)
        if target.has_moved(session.address):
            try:
                session.move_to(target, *target.connect_datagrams(session.client))
            except ClientRefusedError as refusal:
                self._refuse_to_show(session.key, refusal)
            except OSError as failure:
                self._target_failed(failure)

    def _target_failed(self, error: OSError) -> None:
        tell_failed(self.resources.log, self.flows, self.forward, "reach", error)

    # -- the end --

    def on_exception(self, error: Exception) -> None:
        """See Handler: a listener lives on."""
        self.resources.log.limited(
            "defect", "defect", f"internal error on {self.forward.listen}: {error!r}"
        )

    @property
    def sessions(self) -> Collection[UdpSession]:
        """Those that live."""
        return self._sessions.values()

    def refuse_new_clients(self, *, reads: bool) -> None:
        """Serve the sessions there are, and no more.

        Without `reads` only answers are passed on: somebody else reads at the same socket.
        """
        self._takes_new_clients = False
        if self._reads and not reads:
            self._reads = False
            self.resources.reactor.unwatch(self.fd)

    def close(self, end: End) -> None:
        """End the sessions and free the port."""
        if self._socket.fileno() < 0:
            return
        for session in list(self._sessions.values()):
            session.close(end)
        self.resources.replies.forget(self)
        self.refuse_new_clients(reads=False)
        self._socket.close()
