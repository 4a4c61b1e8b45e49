"""A UDP session: one client's datagrams, and a connected socket of its own to the target.

- Up: the listener hands over what it read for this client. One datagram is one write; several
  become as few messages as possible (gso.py).
- Down, normally: one datagram an event is read into a slot of `Replies`, which sends those of
  many sessions with one call. Every few events the session looks for more at once, and goes on
  with that while it finds some; finding many makes it *bulk*: UDP_GRO on its socket.
- ICMP errors of the target come as the next call's error and clear themselves: the call is
  made once more, so they cost no datagram. A target that is back is simply there again.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterable

from v6fwd.errors import ClientRefusedError
from v6fwd.model import Address, UdpProxy
from v6fwd.model.lean import Any
from v6fwd.relay.counters import Counters
from v6fwd.relay.ends import End
from v6fwd.relay.targets.target import Target, for_client
from v6fwd.relay.udp.forward import UdpForward
from v6fwd.relay.udp.gso import MAX_DATAGRAM, Item, Message, first_of, pack, pack_behind
from v6fwd.relay.udp.record import record
from v6fwd.relay.udp.session_table import ANSWERED, ASKED, PROVEN, REPLIED, Sessions
from v6fwd.relay.udp_sockets import receive_segmented

BUSY_FROM = 3
"""Datagrams found at once from which a session goes on to look for more at every event."""
BULK_FROM = 8
"""Datagrams found at once that make a session bulk for good."""
LOOK_AFTER = 15
"""Events with one datagram each until a session looks again whether there are more."""

GONE = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN}
"""What ICMP and the neighbour table say of a target that is not there, connect(2) aside."""


class UdpSession:
    """One client's datagrams, to one local address of a forward.

    Large because all is in one object with many slots: a second one would cost each datagram a
    look-up and each idle session 50 bytes.
    """

    __slots__ = {  # noqa: RUF023 - by subject
        "key": "the client's and the local address, as the listener's demux made it",
        "client": "the client's Address",
        "block": "name and control message of replies to it; see Family.block",
        "slot": "the client's slot in the table of clients; negative: not counted",
        "_forward": "the UdpForward: what the session shares with others, as configured now",
        "forward": "the Forward as it was when the session began",
        # the socket to the target
        "fd": "its descriptor",
        "target": "the Target that made it",
        "address": "where it leads to, as the Target understands it",
        # up
        "_header": "the PROXY header; empty for none",
        "_header_due": "whether the next datagram takes it along",
        "_payload": "the inbox's memory: where datagrams to be sent are",
        "limit": "the longest segment worth sending to the target; see gso.Recipient",
        # down
        "_replies": "the shared replies",
        "down_limit": "the longest segment worth sending to the client",
        "_events": "events until the session looks for more than one datagram; 0: it does",
        "_began_bulk": "whether UDP_GRO is on",
        "_sessions": "the table",
        "rank": "ASKED, ANSWERED, REPLIED or PROVEN",
        "stamp": "the table's stamp when a datagram last moved",
        "closed": "whether it has ended",
        "_started": "seconds on the reactor's clock",
        "up_count": "datagrams up",
        "up_bytes": "their bytes",
        "down_count": "datagrams down",
        "down_bytes": "their bytes",
    }

    def __init__(
        self,
        forward: UdpForward,
        key: bytes,
        block: bytes,
        header: bytes,
        client: Address,
        slot: int,
    ) -> None:
        """Connect to the target. Raises OSError, and then nothing is left to undo."""
        self._forward = forward
        self._header = header  # in front of datagrams, of all or of the first
        self._header_due = bool(header)
        self._payload = forward.resources.inbox.payload
        self._replies = forward.resources.replies
        self._sessions = forward.resources.sessions
        self._events = 1
        self._began_bulk = False
        self._started = forward.resources.reactor.clock()
        self.forward = forward.forward  # the listener's own may become others
        self.target = target = forward.target
        self.key = key
        self.slot = slot
        self.block = block
        self.client = client
        self.rank = ASKED
        self.stamp = 0
        self.closed = False
        self.limit = self.down_limit = MAX_DATAGRAM
        self.up_count = self.up_bytes = self.down_count = self.down_bytes = 0
        self.fd, self.address = target.connect_datagrams(client)
        try:
            forward.resources.reactor.watch(self.fd, select.EPOLLIN, self)
        except BaseException:
            os.close(self.fd)
            target.client_left(self.address, client)
            raise
        if target.is_name:
            forward.resources.silences.add(self)

    # -- up: from the client --

    def send(self, items: list[Item]) -> None:
        """Pass on datagrams that are in the inbox."""
        if self.rank == ANSWERED:
            self._sessions.promote(self, REPLIED)
        start, size, segment = items[0]
        if len(items) == 1 and not segment and not self._header_due:
            # The path of nearly all: written out here, since a call costs a tenth of it.
            payload = self._payload[start : start + size]
            try:
                os.write(self.fd, payload)
            except OSError as error:
                if not (self.failed(error, again=False) and self._wrote_again(payload)):
                    return
            self.up_count += 1
            self.up_bytes += size
        elif not self._header_due:
            self._post(items, pack(items, self._forward.resources.inbox.address, self.limit))
        elif self.forward.udp_proxy is UdpProxy.EVERY:
            self._send_headed(items)
        else:
            first, rest = first_of(items)
            self._send_headed([first])
            if rest:
                self.send(rest)

    def _send_headed(self, items: list[Item]) -> None:
        """The header in front of each datagram."""
        size = len(self._header)
        fitting = [item for item in items if size + (item[2] or item[1]) <= MAX_DATAGRAM]
        if len(fitting) < len(items):
            self._forward.too_large(self.key, len(items) - len(fitting))
        if len(fitting) == 1 and not fitting[0][2]:
            self._send_one_headed(*fitting[0][:2])
        elif fitting:
            self._post_headed(fitting)

    def _send_one_headed(self, start: int, size: int) -> None:
        payload = self._payload[start : start + size]
        try:
            os.writev(self.fd, (self._header, payload))
        except OSError as error:
            if not (self.failed(error, again=False) and self._wrote_again(payload)):
                return
        self._header_due = self.forward.udp_proxy is UdpProxy.EVERY
        self.up_count += 1
        self.up_bytes += size

    def _wrote_again(self, payload: memoryview) -> bool:
        try:
            if self._header_due:
                os.writev(self.fd, (self._header, payload))
            else:
                os.write(self.fd, payload)
        except OSError as error:
            self.failed(error, again=True)
            return False
        return True

    def _post_headed(self, items: list[Item]) -> None:
        """As a batch; each datagram is two pieces, the header and its payload."""
        resources, size = self._forward.resources, len(self._header)
        resources.scratch.view[:size] = self._header
        header = (resources.scratch.address, size)
        self._post(items, pack_behind(header, items, resources.inbox.address, self.limit))

    def _post(self, items: list[Item], messages: Iterable[Message]) -> None:
        for _, size, segment in items:
            self.up_count += -(-size // segment) if segment else 1
            self.up_bytes += size
        self._forward.resources.sender.post(self, messages)

    def failed(self, error: OSError, *, again: bool) -> bool:
        """Send once more to a target that is not there; anything else is lost."""
        forward = self._forward
        if error.errno in GONE:
            forward.counters.refused += 1
            self._target_gone(error)
            if not again:
                return True
        forward.lost(error)
        return False

    def _target_gone(self, error: OSError) -> None:
        """Look for the target elsewhere."""
        forward = self._forward
        forward.target_failed(self.client, error)
        # After a reload, its target will do, unless its mode preserves clients in another way.
        same = self.forward.client_ip is forward.forward.client_ip
        target = forward.target if same else self.target
        target.was_refused(self.address)
        self._follow(target)
        self._header_due = bool(self._header)  # the same address may be another program by now

    def expired(self) -> None:
        """The target has had its time to answer: if it did not, look for it elsewhere."""
        if self.rank == ASKED and not self.closed:
            self._forward.resources.silences.add(self)
            self.target.was_silent(self.address)
            self._follow(self.target)

    def _follow(self, target: Target) -> None:
        """Go where the target leads now, if that is elsewhere."""
        if not target.has_moved(self.address):
            return
        try:
            self._move_to(target, *target.connect_datagrams(self.client))
        except ClientRefusedError as refusal:
            self._forward.not_preserved(self.key, refusal)
        except OSError as failure:
            self._forward.target_failed(self.client, failure)

    def _move_to(self, target: Target, fd: int, address: Any) -> None:
        """Use another socket: the target's address has changed, or the target."""
        reactor = self._forward.resources.reactor
        try:
            reactor.watch(fd, select.EPOLLIN, self)
        except BaseException:
            os.close(fd)
            target.client_left(address, self.client)
            raise
        reactor.close_fd(self.fd)
        self.target.client_left(self.address, self.client)
        self.target, self.fd, self.address = target, fd, address
        self._began_bulk = False
        self._header_due = bool(self._header)  # the new target has not seen it

    # -- down: from the target --

    def on_event(self, mask: int) -> None:  # noqa: ARG002 - reading tells all
        """Read what the target sent, or the error that it is not there."""
        if not self._events:
            self._receive_all()
            return
        self._events -= 1
        replies = self._replies
        try:
            size = os.readv(self.fd, replies.room(self._forward))
        except OSError as error:
            self._receive_failed(error)
            return
        replies.put(self, size)
        self.down_count += 1
        self.down_bytes += size
        if self.rank < ANSWERED or self.stamp != self._sessions.stamp:
            self._answered()

    def _receive_all(self) -> None:
        """Read a batch."""
        replies = self._replies
        try:
            items = replies.receive(self._forward, self.fd)
        except OSError as error:
            self._receive_failed(error)
            return
        if len(items) >= BULK_FROM:
            self._begin_bulk()
        elif len(items) < BUSY_FROM and not self._began_bulk:
            self._events = LOOK_AFTER
        replies.put_all(self, items)
        for _, size, segment in items:
            self.down_count += -(-size // segment) if segment else 1
            self.down_bytes += size
        self._answered()

    def _begin_bulk(self) -> None:
        """Read only batches from now on: a plain read does not tell the segment size."""
        if not self._began_bulk:
            self._began_bulk = True
            receive_segmented(self.fd)

    def _receive_failed(self, error: OSError) -> None:
        if error.errno in (errno.EAGAIN, errno.EINTR):
            return
        self._forward.counters.refused += 1
        if error.errno in GONE:
            self._target_gone(error)

    def _answered(self) -> None:
        if self.rank == ASKED and self.target.is_name:
            self.target.answered(self.address)
        if self.rank < ANSWERED:
            self._sessions.promote(self, ANSWERED if self.rank == ASKED else PROVEN)
        elif self.stamp != self._sessions.stamp:
            self._sessions.touch(self)

    # -- the end --

    def close(self, end: End) -> None:
        if self.closed:
            return
        self.closed = True
        resources = self._forward.resources
        self._sessions.remove(self)
        self._forward.forget(self.key)
        if self.target.is_name:
            resources.silences.discard(self)
        if self.slot >= 0:
            resources.clients.leave(self.slot)
        try:
            self._forward.flows.flow_ended(end, self.up_bytes, self.down_bytes, self.seconds())
            if resources.log_flows:
                record(resources.log, self, end)
        finally:  # whatever fails: the descriptor is given back
            resources.reactor.close_fd(self.fd)
            self.target.client_left(self.address, self.client)

    def abort(self, end: End, detail: str = "") -> None:  # noqa: ARG002 - nothing to reset
        self.close(end)

    def on_exception(self, error: Exception) -> None:
        """A defect of ours, or no memory: it costs this session alone."""
        text = f"internal error: {error!r}{for_client(self.client)}"
        self._forward.resources.log.limited("defect", "defect", text)
        self.close(End.INTERNAL_ERROR)

    def move_table(self, sessions: Sessions) -> None:
        """Let this table see to the end of this session.

        In the table that it is in it keeps its place: it has moved no datagram.
        """
        if sessions is self._sessions:
            return
        self._sessions.remove(self)
        self._sessions = sessions
        sessions.add(self)

    # -- what may be asked --

    @property
    def counters(self) -> Counters:
        return self._forward.flows

    @property
    def source(self) -> Address:
        """Who the client is."""
        return self.client

    def moved(self) -> tuple[int, int]:
        """Bytes up and down."""
        return self.up_bytes, self.down_bytes

    def seconds(self) -> float:
        """How long it lives."""
        return self._forward.resources.reactor.clock() - self._started
