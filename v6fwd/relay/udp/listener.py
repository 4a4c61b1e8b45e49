"""The listening socket of a UDP forward, whose clients are told apart by address.

It is level-triggered and takes one batch an event, so that a flood has its turn and no more.
`demux` tells which client sent each datagram of a batch.
Making a session costs ten times what a datagram of a known one does: after NEW_AT_ONCE of them
the remaining new clients of the batch wait (`pending`) while everybody else is served.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Collection

from v6fwd.client_ip.proxy.read import Header
from v6fwd.client_ip.trust import TrustedNetworks
from v6fwd.errors import ClientRefusedError
from v6fwd.log import attempt
from v6fwd.model import Endpoint, Forward
from v6fwd.model.lean import Any
from v6fwd.relay.ends import End
from v6fwd.relay.targets.target import Target
from v6fwd.relay.udp.demux import Demux
from v6fwd.relay.udp.forward import UdpForward
from v6fwd.relay.udp.gso import Item, count_of
from v6fwd.relay.udp.hop_limits import HopLimits
from v6fwd.relay.udp.mmsg import SLOT_SIZE, SLOTS
from v6fwd.relay.udp.pending import PendingClient, PendingClients
from v6fwd.relay.udp.renewal import Renewal
from v6fwd.relay.udp.resources import UdpResources
from v6fwd.relay.udp.session import UdpSession
from v6fwd.relay.udp.session_maker import SessionMaker
from v6fwd.relay.udp_sockets import family_of

NEW_AT_ONCE = 16
"""Sessions made before everybody else gets a turn: about half a millisecond."""

SLOTS_WITH_HEADERS = 8
"""Messages taken at once where clients send PROXY headers: what is left of them is copied."""

MANY = 4
"""Events found at once from which on a listener skips every other one of its own.

It comes back with the next events: who has that much to do gathers larger batches, in which more
datagrams of one client are neighbours and are sent as one message (`gso`).
"""


class UdpListener:
    """Reads the datagrams of all clients, and hands each to its session.

    Large because the order of a client's datagrams is kept across its sessions, the clients that
    are pending and the batch that is not read to its end.
    """

    def __init__(
        self, forward: Forward, target: Target, sock: socket.socket, resources: UdpResources
    ) -> None:
        """Take over a listening socket that `prepare_udp_listener` has set up."""
        family, self._fd = family_of(sock), sock.fileno()
        self._socket = sock
        self._reads = True
        self._sessions: dict[bytes, UdpSession] = {}
        self._forward = UdpForward(self._fd, family, self._forget)
        self._maker = SessionMaker(self._forward, int(sock.getsockname()[1]))
        self._demux = Demux(family, self._forward.header_refused, resources.reactor.clock)
        self.configure(forward, target, resources)
        self._unread = Unread(self)
        self._pending = PendingClients()
        self._takes_new_clients = True
        self._gathers = False
        self._hop_limits = HopLimits(self._fd, family)
        self._renewal = Renewal(self._resume_later)
        resources.reactor.watch(self._fd, select.EPOLLIN, self)
        resources.own.add(sock)

    @property
    def forward(self) -> UdpForward:
        """What it shares with its sessions."""
        return self._forward

    def configure(self, forward: Forward, target: Target, resources: UdpResources) -> None:
        """Serve new clients like this from now on; existing sessions stay as they began."""
        for session in list(self._sessions.values()):
            session.move_table(resources.sessions)
        self._forward.configure(forward, target, resources)
        self._maker.configure()
        self._demux.trusted = (
            TrustedNetworks(forward.accept_proxy) if forward.accept_proxy else None
        )

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        return self._forward.forward.listen

    @property
    def address(self) -> Any:
        """The bound socket address."""
        return self._socket.getsockname()

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    # -- datagrams of clients --

    def on_event(self, mask: int) -> None:  # noqa: ARG002 - reading tells all
        """Take a batch and pass it on."""
        forward = self._forward
        resources = forward.resources
        if resources.reactor.at_once > MANY and not self._gathers:
            self._gathers = True
            return
        self._gathers = False
        demux = self._demux
        if demux.has_unread:
            return
        end = SLOTS if demux.trusted is None else SLOTS_WITH_HEADERS
        try:
            count = resources.inbox.receive(self._fd, 0, end)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                forward.lost(error)
            return
        self._pass_on(count)

    def _pass_on(self, count: int) -> None:
        """Sort the messages in the inbox, and send them on."""
        forward, demux = self._forward, self._demux
        resources = forward.resources
        table, sessions = resources.sessions, self._sessions
        made = forward.counters.sessions
        groups = demux.sort(resources.inbox, count)
        if demux.has_unread:
            resources.reactor.resume_later(self._unread)
        for key, items in groups.items():
            session = sessions.get(key)
            if session is None:
                fresh = forward.counters.sessions - made < NEW_AT_ONCE
                session = self._new_client(key, items, fresh=fresh)
                if session is None:
                    continue
            elif session.stamp != table.stamp:
                table.touch(session)
            try:
                session.send(items)
            except Exception as error:
                session.on_exception(error)
        demux.headers.clear()

    def go_on(self) -> None:
        """Pass on what is left of a batch: reading its headers took too long."""
        self._pass_on(self._demux.take_unread(self._forward.resources.inbox))

    # -- new clients --

    def _new_client(self, key: bytes, items: list[Item], *, fresh: bool) -> UdpSession | None:
        """A session for a new client, or None: it waits in `pending`, or is not served."""
        if not self._takes_new_clients:
            return None
        inbox = self._forward.resources.inbox
        number = items[0][0] // SLOT_SIZE
        control_size = inbox.control_sizes(number + 1)[number]
        hops, loop = self._forward.resources.hops, self._forward.resources.reactor.loop
        info = self._hop_limits.info(inbox.meta_of(number), control_size, hops, loop)
        header = self._demux.headers.get(key)
        waits = self._renewal.holds(self._forward.target)
        if fresh and not waits and key not in self._pending:
            try:
                session = self._make(key, info, header)
            except ClientRefusedError:
                return None
            if session is not None:
                return session
        if not self._pending and not waits:
            self._resume_later()
        if not self._pending.add(key, info, header, inbox.payload, items):
            self._forward.counters.no_room += count_of(items)
        return None

    def _resume_later(self) -> None:
        self._forward.resources.reactor.resume_later(self)

    def _make(self, key: bytes, info: bytes, header: Header | None) -> UdpSession | None:
        """As SessionMaker.make; the session gets the client's datagrams from now on."""
        session = self._maker.make(key, info, header)
        if session is not None:
            self._sessions[key] = session
        return session

    def resume(self) -> None:
        """Serve pending clients, NEW_AT_ONCE at a time."""
        try:
            self._serve_pending()
        except BaseException:
            self._pending.clear()  # lost, as on a full link: else nobody would come back to them
            raise

    def _serve_pending(self) -> None:
        pending, payload = self._pending, self._forward.resources.inbox.payload
        for _ in range(NEW_AT_ONCE):
            client = pending.take(payload)
            if client is None:
                return
            try:
                session = self._session_of(client)
            except ClientRefusedError:
                pending.forget(client.key)
                continue
            self._let_in(session, client)
            while client.more:  # all of them now: what comes next must not overtake them
                rest = pending.take(payload)
                assert rest is not None
                client = rest
                self._let_in(session, client)
        if pending:
            self._resume_later()

    def _session_of(self, client: PendingClient) -> UdpSession | None:
        """The session of a pending client; None where it cannot be made now.

        Raises ClientRefusedError.
        """
        session = self._sessions.get(client.key)
        if session is not None or not self._takes_new_clients:
            return session
        return self._make(client.key, client.info, client.header)

    def _let_in(self, session: UdpSession | None, client: PendingClient) -> None:
        if session is None:
            self._forward.counters.no_room += count_of(client.items)
            return
        try:
            session.send(client.items)
        except Exception as error:
            session.on_exception(error)

    def _forget(self, key: bytes) -> None:
        self._sessions.pop(key, None)

    # -- the end --

    def on_exception(self, error: Exception) -> None:
        """Log a defect; the listener lives on, without what was left of a batch."""
        self._demux.drop_unread()
        self._forward.on_exception(error)

    @property
    def sessions(self) -> Collection[UdpSession]:
        """The live sessions."""
        return self._sessions.values()

    def refuse_new_clients(self, *, reads: bool) -> None:
        """Serve the sessions there are, and no more.

        Without `reads`, pass on answers only: another process reads from the same socket.
        """
        self._takes_new_clients = False
        if self._reads and not reads:
            self._reads = False
            self._forward.resources.reactor.unwatch(self._fd)

    def close(self, end: End) -> None:
        """End the sessions and free the port."""
        if self._socket.fileno() < 0:
            return
        for session in list(self._sessions.values()):
            attempt(session.close, end)
        self._forward.resources.replies.forget(self._forward)
        self.refuse_new_clients(reads=False)
        self._hop_limits.close()
        self._demux.drop_unread()
        self._forward.resources.own.remove(self._fd)
        self._socket.close()


class Unread:
    """The turn of a listener that has to read the rest of a batch.

    It is another one than that of its pending clients, so that each comes up once.
    """

    def __init__(self, listener: UdpListener) -> None:
        self._listener = listener

    def resume(self) -> None:
        """Read on."""
        self._listener.go_on()

    def on_exception(self, error: Exception) -> None:
        """Give up what was left."""
        self._listener.on_exception(error)
