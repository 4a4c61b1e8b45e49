"""Makes a flow of each accepted client that may come in."""

from __future__ import annotations

import os
from collections.abc import Callable

from v6fwd.model import Address
from v6fwd.model.lean import Any
from v6fwd.relay.admission import REFUSED, UNCOUNTED
from v6fwd.relay.sockets import address_of, packed_of, reset_on_close
from v6fwd.relay.targets.target import for_client
from v6fwd.relay.tcp.forward import TcpForward
from v6fwd.relay.tcp.stream import StreamFlow


class Acceptor:
    """Takes the clients of one listener, whatever kind of flow they become."""

    __slots__ = ("_make", "forward")

    def __init__(self, forward: TcpForward, make: Callable[[int, int], StreamFlow]) -> None:
        """`make` gets the client's descriptor and its slot in the table of clients."""
        self.forward = forward
        self._make = make

    def accepted(self, fd: int, sockaddr: Any) -> None:
        """Take an accepted, non-blocking descriptor and its client's address."""
        forward = self.forward
        slot = UNCOUNTED
        if forward.admission is not None:
            slot = self._judged(forward.admission.admit, fd, sockaddr)
            if slot == REFUSED:
                return
        try:
            flow = self._make(fd, slot)
            forward.resources.flows.add(flow)
        except BaseException:  # no memory: the descriptor has no other owner
            self._drop(fd, slot)
            raise
        forward.counters.flows += 1
        forward.resources.hops.began()
        try:
            flow.start(sockaddr)
        except Exception as error:
            flow.on_exception(error)

    def unless_banned(self, fd: int, sockaddr: Any) -> None:
        """As `accepted`, while there are bans: reset a banned client."""
        judge = self.forward.judge_banned
        if not self._seems_banned(sockaddr) or self._judged(judge, fd, sockaddr) != REFUSED:
            self.accepted(fd, sockaddr)

    def _seems_banned(self, sockaddr: Any) -> bool:
        """Whether its address is banned; also if that cannot be told: then `_judged` says why."""
        try:
            return packed_of(sockaddr) in self.forward.resources.bans
        except Exception:
            return True

    def _drop(self, fd: int, slot: int) -> None:
        try:
            reset_on_close(fd)
        finally:
            os.close(fd)
            if slot >= 0:
                self.forward.resources.clients.leave(slot)

    def _judged(self, judge: Callable[[Address], int], fd: int, sockaddr: Any) -> int:
        """Ask whether a new client may come in, for its slot, and reset it if not.

        A client that is trusted to name another one is asked for that name first.
        """
        trusted = self.forward.trusted
        client = None
        try:
            client = address_of(sockaddr)
            if trusted is not None and client.packed in trusted:
                return UNCOUNTED
            slot = judge(client)
        except Exception as error:
            text = f"internal error: {error!r}{for_client(client)}"
            self.forward.resources.log.limited("defect", "defect", text)
            slot = REFUSED
        if slot == REFUSED:
            reset_on_close(fd)
            os.close(fd)
        return slot
