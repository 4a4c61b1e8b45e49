"""Accepts clients, and stops to accept while there is no room for more.

A full process (its limit of flows reached, or no descriptors or memory left) stops accepting:
the kernel keeps new clients in the queue, nothing spins. A flow that ends lets them in at once.
A client that has waited for `PATIENCE` seconds is reset rather than left hanging.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterable

from v6fwd.errors import reason
from v6fwd.log import Log, counted
from v6fwd.model import Endpoint
from v6fwd.model.lean import TYPE_CHECKING, Any
from v6fwd.relay.counters import Counters
from v6fwd.relay.flows import Flows
from v6fwd.relay.limits.port_shares import ALPHA, PortShares
from v6fwd.relay.limits.siblings import Alone, Siblings
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.sockets import BACKLOG, accepting, last_errno, reset_on_close

if TYPE_CHECKING:
    import asyncio

ACCEPT_BATCH = 16
"""Clients accepted from one listener before the flows get a turn."""
FILLED_MOST = 8
"""Full batches in a row, after which a larger one is tried."""
PATIENCE = 1.0
"""Seconds between two looks at a queue of clients that cannot be served."""
FIRST_PAUSE = 0.010
"""Seconds until the first retry after the kernel had no memory or descriptors; doubles."""
LEEWAY = 0.002
"""Seconds for which a process with far more flows than another lets that one accept."""
SHED_BATCH = 1024
"""Most clients to reset at one look at one listener."""

_UNACKED = 24
"""Offset of tcpi_unacked; of a listening socket it is the length of the queue (tcp_get_info)."""
_WATCH = select.EPOLLIN | select.EPOLLEXCLUSIVE
"""Exclusive: a client wakes one of several processes that wait at the same socket."""

_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

Begin = Callable[[int, Any], None]
"""Takes an accepted, non-blocking descriptor, and its client's address as `address_of` reads it.

The address is overwritten by the next client's."""


class Listener:
    """A listening socket, and the function that takes its clients."""

    def __init__(
        self,
        endpoint: Endpoint,
        sock: socket.socket,
        begin: Begin,
        gate: Gate,
        counters: Counters,
    ) -> None:
        """`counters`: where `begin` counts flows."""
        self.endpoint = endpoint
        self.begin = begin
        self.counters = counters
        self.watched = False
        self._socket = sock
        self._accept, self._sockaddr = accepting(sock)
        self._batch = 1  # clients to be accepted at an event
        self._filled = 0  # events in a row that had as many
        self._gate = gate
        gate.add(self)

    @property
    def address(self) -> Any:
        """The bound socket address."""
        return self._socket.getsockname()

    def fileno(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    def on_event(self, mask: int) -> None:  # noqa: ARG002 - accepting tells all
        """Accept as many as came at once lately: another accept(2) would cost 4 us in vain.

        If more wait, the next poll tells of them: a listener is level-triggered.
        """
        if self._gate.siblings is None:
            self.accept(self._batch)
            self._filled += 1
            if self._filled > FILLED_MOST:
                self._filled = 0
                self._batch = min(2 * self._batch, ACCEPT_BATCH)
        else:
            self._gate.take_turn(self)

    def accept(self, most: int) -> None:
        """Accept up to `most` of the clients that wait, while there is room for them."""
        accept, sockaddr, gate = self._accept, self._sockaddr, self._gate
        live, limit, counters = gate.flows.live, gate.flows.limit, self.counters
        alpha = ALPHA if gate.is_shared else limit  # one port alone may use every flow
        for count in range(most):
            if counters.flows - counters.ended >= alpha * (limit - len(live)):
                gate.no_room(self)
                return
            fd = accept()
            if fd < 0:
                self._none_came(count, last_errno())
                return
            self.begin(fd, sockaddr)
        gate.pause = FIRST_PAUSE

    def _none_came(self, count: int, number: int) -> None:
        """accept(2) gave no client after so many."""
        if number == errno.EAGAIN:
            self._batch, self._filled = max(1, count), 0
            self._gate.pause = FIRST_PAUSE
        elif number != errno.EINTR:  # then the next poll tells of them
            self._gate.accept_failed(self, OSError(number, os.strerror(number)))

    def on_exception(self, error: Exception) -> None:
        """Log it, and accept nobody for a while: a listener lives on."""
        self._gate.failed(self, error)

    def waiting(self) -> int:
        """Clients in the queue."""
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED + 4)
        except OSError:
            return 0
        return int(struct.unpack_from("=I", info, _UNACKED)[0])

    def shed(self) -> int:
        """Reset the clients in the queue; gives how many there were."""
        for count in range(SHED_BATCH):
            fd = self._accept()
            if fd < 0:
                return count
            reset_on_close(fd)
            os.close(fd)
        return SHED_BATCH

    def close(self) -> None:
        """Free the port."""
        self._socket.close()


class Gate:
    """Opens and shuts all listeners of the process.

    Large because its members are one state, whether clients may come in, and the four reasons to
    change it: too many flows, want of memory or descriptors, fairness between processes, and
    fairness between ports.
    """

    def __init__(
        self, reactor: Reactor, flows: Flows, log: Log, siblings: Siblings | None = None
    ) -> None:
        self._reactor = reactor
        self.flows = flows
        self._log = log
        self.siblings = siblings
        self._listeners: list[Listener] = []
        self._open = True
        self._sheds = False
        self.pause = FIRST_PAUSE
        """Seconds until the next try where the kernel is short of something."""
        self._insistence = 1
        self._timer: asyncio.TimerHandle | None = None
        parts = reactor, flows, log, siblings or Alone(), lambda: PATIENCE
        self._shares = PortShares[Listener](self, *parts)
        self.is_shared = False
        self._spare = _spare()
        flows.on_left = self._flow_left

    def add(self, listener: Listener) -> None:
        """Accept clients on this listener, too. Raises OSError: then it is none of ours."""
        if self._open:
            self._watch(listener)
        self._listeners.append(listener)
        self.is_shared = len(self._listeners) > 1

    def remove(self, listener: Listener, *, take_queue: bool) -> None:
        """Close a listener. `take_queue`: accept the clients in its queue first."""
        if take_queue:
            self._reactor.attempt(listener, listener.accept, BACKLOG)
        self._unwatch(listener)
        listener.close()
        self._listeners.remove(listener)
        self.is_shared = len(self._listeners) > 1
        self._shares.forget(listener)

    def take_turn(self, listener: Listener) -> None:
        """Accept one client, and let others be woken for the next.

        Those who wait at a socket are woken in the order in which they began to: whoever stays
        in front gets all clients of a quiet hour. So we go to the end of the line. In a burst
        the first who is awake would take all: who is far ahead leaves the others some time.
        """
        if self.siblings is not None and self.siblings.is_ahead(len(self.flows)):
            self._unwatch(listener)
            self._reactor.loop.call_later(LEEWAY, self._take_all_the_same, listener)
            return
        self._insistence = 1
        listener.accept(1)
        if listener.watched:
            self._unwatch(listener)
            self._watch(listener)

    def _take_all_the_same(self, listener: Listener) -> None:
        """The others had time: one may be stopped, or have more to do than we. More each time."""
        if self._open and listener in self._listeners:
            self._reactor.attempt(listener, self._insist, listener)

    def _insist(self, listener: Listener) -> None:
        self._watch(listener)
        listener.accept(self._insistence)
        self._insistence = min(ACCEPT_BATCH, 2 * self._insistence)

    def no_room(self, listener: Listener) -> None:
        """A client waits and may not come in: stop accepting, everywhere or on this port."""
        if not self.flows.is_full:
            self._shares.pause(listener)
        elif self._open and not self._shares.make_room(listener, self._listeners):
            self._tell_full(f"all {self.flows.limit} flows are in use")
            self._shut(PATIENCE, shed=True)

    def pause_port(self, listener: Listener) -> None:
        """Stop accepting on this one."""
        self._unwatch(listener)

    def resume_port(self, listener: Listener) -> None:
        """Accept on this one again, if the gate is open."""
        if self._open:
            self._watch(listener)

    def accept_failed(self, listener: Listener, error: OSError) -> None:
        """accept(2) failed: for this client alone, or for want of something."""
        text = reason(error)
        if error.errno in _NO_ROOM:
            self._tell_full(text)
            self._shut(self.pause, shed=self.pause >= PATIENCE)
            self.pause = min(self.pause * 2, PATIENCE)
        else:  # ECONNABORTED, EPERM by a firewall, network errors: accept(2) says go on
            self._log.limited(
                f"accept {listener.endpoint} {error.errno}",
                "accept-failed",
                f"cannot accept on {listener.endpoint}: {text}",
                listen=listener.endpoint,
            )
            self._shut(FIRST_PAUSE, shed=False)

    def failed(self, listener: Listener, error: Exception) -> None:
        """Pause after an exception that nobody expected, such as MemoryError; longer each time."""
        try:
            text = f"internal error accepting on {listener.endpoint}: {error!r}"
            self._log.limited("defect", "defect", text)
        finally:  # without memory for the line, too
            self._shut(self.pause, shed=False)
            self.pause = min(self.pause * 2, PATIENCE)

    def close_all(self, *, take_queue: bool) -> None:
        """Free the ports; see `remove`."""
        for listener in list(self._listeners):
            self.remove(listener, take_queue=take_queue)
        self.close()

    def close(self) -> None:
        """Close the listeners that are still open, the timer and the spare descriptor."""
        self.flows.on_left = None
        if self._timer is not None:
            self._timer.cancel()
        for listener in list(self._listeners):
            self.remove(listener, take_queue=False)
        self._shares.close()
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    def _flow_left(self) -> None:
        self.pause = FIRST_PAUSE
        if not self._open and not self.flows.is_full:
            self._reopen()
        if self._shares.paused:
            self._shares.resume_soon()

    def _tell_full(self, why: str) -> None:
        self._log.limited(
            "full",
            "full",
            f"no room for more clients: {why} ({counted(len(self.flows), 'flow')}); they wait",
            burst=1,
            why=why,
            flows=len(self.flows),
        )

    def _shut(self, pause: float, *, shed: bool) -> None:
        """Stop accepting for `pause` seconds; then, if there is no room still, maybe shed."""
        self._sheds = shed
        if self._open:
            self._open = False
            self._all_full(True)
            for listener in self._listeners:
                self._unwatch(listener)
        if self._timer is None:
            self._timer = self._reactor.loop.call_later(pause, self._look)

    def _look(self) -> None:
        """The pause is over: serve if there is room, shed if there was none for long."""
        self._timer = None
        try:
            if not self._open:
                self._shed_or_reopen()
        finally:  # whatever fails: somebody looks again
            if not self._open and self._timer is None:
                self._timer = self._reactor.loop.call_later(PATIENCE, self._look)

    def _shed_or_reopen(self) -> None:
        if self._sheds and self._all_full(True):
            if self.flows.is_full and self._make_room():
                return  # the flows that left have opened the gate
            self.shed(self._listeners)
        if not self.flows.is_full:
            self._reopen()

    def _make_room(self) -> bool:
        return any(self._shares.make_room(each, self._listeners) for each in self._listeners)

    def _reopen(self) -> None:
        self._open = True
        self._all_full(False)
        for listener in self._listeners:
            if self._open and listener not in self._shares.paused:  # one that fails shuts the gate
                self._reactor.attempt(listener, self._watch, listener)

    def _all_full(self, full: bool) -> bool:
        return full if self.siblings is None else self.siblings.all_full(full)

    def _watch(self, listener: Listener) -> None:
        if not listener.watched:
            self._reactor.watch(listener.fileno(), _WATCH, listener)
            listener.watched = True

    def _unwatch(self, listener: Listener) -> None:
        """Not with a mask of 0: what is watched exclusively cannot be changed, epoll_ctl(2)."""
        if listener.watched:
            listener.watched = False
            self._reactor.unwatch(listener.fileno())

    def shed(self, listeners: Iterable[Listener]) -> None:
        """Reset those that wait. The spare descriptor is what makes that possible at EMFILE."""
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        try:
            count = sum(listener.shed() for listener in listeners)
        finally:
            self._spare = _spare()
        if count:
            self._log.limited(
                "shed",
                "shed",
                f"reset {counted(count, 'client')} for want of room",
                burst=1,
                clients=count,
            )


def _spare() -> int:
    try:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
