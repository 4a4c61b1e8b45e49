"""Makes the sessions of new UDP clients: admission, room in the table, the header, the socket."""

from __future__ import annotations

import errno

from v6fwd.client_ip.proxy.read import Header
from v6fwd.errors import ClientRefusedError, reason
from v6fwd.model import Address, ClientIP
from v6fwd.relay.admission import BANNED, REFUSED, UNCOUNTED, admission_of, refuse
from v6fwd.relay.limits.hops import set_hop_limit_of
from v6fwd.relay.udp.forward import UdpForward
from v6fwd.relay.udp.session import UdpSession

_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class SessionMaker:
    """Makes sessions for the clients of one listening socket."""

    def __init__(self, forward: UdpForward, port: int) -> None:
        """`port` is the one that the socket is bound to. `configure` must follow."""
        self._forward = forward
        self._port = port

    def configure(self) -> None:
        """Admit new clients as the forward says now."""
        forward = self._forward
        resources = forward.resources
        self._admission = admission_of(
            forward.forward, resources.clients, forward.flows.refused, resources.log
        )

    def make(self, key: bytes, info: bytes, header: Header | None) -> UdpSession | None:
        """Make a client's session; None where that failed, which is logged, and may succeed later.

        Raises ClientRefusedError where it would fail again.
        """
        self._refuse_own(key)
        limit = self._hop_limit(key, info)
        source, destination = self._addresses(key, header)
        slot = self._admit(source)
        resources = self._forward.resources
        try:
            resources.sessions.make_room(self._forward.flows)
            session = self._session(key, info, slot, source, destination)
            if limit:
                set_hop_limit_of(session.fd, limit)
        except Exception as error:
            if slot >= 0:
                resources.clients.leave(slot)
            if isinstance(error, ClientRefusedError):
                self._forward.not_preserved(key, error)
                raise
            self._failed(source, error)
            return None
        self._forward.counters.sessions += 1
        self._forward.flows.flows += 1
        try:
            resources.sessions.add(session)
        except Exception as error:  # a session that no table has would never expire
            session.on_exception(error)
            return None
        if self._forward.forward.client_ip is ClientIP.TRANSPARENT:
            self._forward.note_shown(session.client)
        return session

    def _refuse_own(self, key: bytes) -> None:
        """Raises ClientRefusedError where the answers would come back to a listener of ours."""
        forward = self._forward
        if forward.resources.own.has(forward.family.client(key), forward.family.scope(key)):
            forward.would_loop(key)
            raise ClientRefusedError

    def _hop_limit(self, key: bytes, info: bytes) -> int:
        """That of what the session sends; 0: the system's. Raises ClientRefusedError for a loop.

        `info` is followed by the hop limit of the client's datagram, if it was heard.
        """
        hops, forward = self._forward.resources.hops, self._forward
        hops.began()
        if not hops.is_on:
            return 0
        limit = hops.onward(int.from_bytes(info[forward.family.info_length :], "big"))
        if not limit:
            forward.came_round(key)
            raise ClientRefusedError
        return limit

    def _addresses(self, key: bytes, header: Header | None) -> tuple[Address, Address]:
        """The client's address, and the one that it wrote to."""
        if header is not None and header.source is not None and header.destination is not None:
            return header.source, header.destination
        family = self._forward.family
        return family.client(key), family.local(key, self._port)

    def _admit(self, source: Address) -> int:
        """The client's slot in the shared table. Raises ClientRefusedError."""
        forward = self._forward
        resources = forward.resources
        if resources.bans and source.packed in resources.bans:
            listen, refused = forward.forward.listen, forward.flows.refused
            refuse(source, listen, BANNED, refused, resources.log)
            raise ClientRefusedError
        if self._admission is None:
            return UNCOUNTED
        try:
            slot = self._admission.admit(source)
        except Exception as error:
            self._forward.on_exception(error)
            slot = REFUSED
        if slot == REFUSED:
            raise ClientRefusedError
        return slot

    def _session(
        self, key: bytes, info: bytes, slot: int, source: Address, destination: Address
    ) -> UdpSession:
        forward = self._forward
        write = forward.write_header
        header = write(source, destination) if write is not None else b""
        return UdpSession(forward, key, forward.family.block(key, info), header, source, slot)

    def _failed(self, client: Address, error: Exception) -> None:
        forward = self._forward
        if not isinstance(error, OSError):
            forward.on_exception(error)
        elif error.errno in _NO_ROOM:
            self._no_room(error)
        else:
            forward.target_failed(client, error)

    def _no_room(self, error: OSError) -> None:
        sessions, why = self._forward.resources.sessions, reason(error)
        sessions.evict_for(self._forward.flows)
        self._forward.resources.log.limited(
            "full udp",
            "full",
            f"no room for more UDP sessions: {why} ({len(sessions)} are there)",
            burst=1,
            why=why,
            sessions=len(sessions),
        )
