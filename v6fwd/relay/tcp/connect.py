"""The wait for a target: addresses tried in turn, the first bytes written, one report at the end.

Whoever reports may have closed the flow by it: return at once.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Sequence

from v6fwd.errors import ClientRefusedError, LoopError
from v6fwd.relay.admission import LOOP
from v6fwd.relay.limits.hops import loop_text
from v6fwd.relay.pump import ConnectEvents, Flags, Reason, Stopped
from v6fwd.relay.sockets import is_connected, pending_error, reset_on_close
from v6fwd.relay.targets.addresses import SocketAddress
from v6fwd.relay.targets.target import Target
from v6fwd.relay.tcp.first_bytes import FirstBytes
from v6fwd.relay.tcp.forward import TcpForward
from v6fwd.relay.tcp.race import Race
from v6fwd.relay.tcp.side import READ_WRITE

RETRY = 0.010
"""Seconds until a connect is tried again for which there was no descriptor, or no room in the
queue of a unix socket."""
_FAILS = select.EPOLLERR | select.EPOLLHUP
"""tcp_poll() in Linux gives EPOLLOUT without one of these only when the handshake is done."""
_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}


class Connect:
    """Connects one flow to its target, and reports to the flow exactly once.

    Large because a connect is one state until it reports: the address that is tried, what the
    client has said meanwhile, and what has been asked of the resolver.
    """

    __slots__ = (
        "_done",
        "_fd",
        "_first",
        "_forward",
        "_is_late",
        "_is_pair",
        "_owner",
        "_race",
        "_refreshed",
    )

    def __init__(self, owner: ConnectEvents, forward: TcpForward, first: FirstBytes) -> None:
        self._owner = owner
        self._forward = forward
        self._first = first
        self._fd = -1  # the target's, until it is handed over
        self._race: Race | None = None  # where the target has several addresses
        self._refreshed = False  # the resolver has been asked again
        self._is_pair = False  # another pump waits for the target
        self._is_late = False  # it has been told to stop
        self._done = False

    def start(self) -> None:
        """Connect; of several addresses to the next. May report before it returns."""
        target = self._forward.target
        if target.is_name and self._race is None and self._asks(target):
            return
        if not self._first_read():
            return
        race = self._race
        try:
            self._fd = fd = self._dial(target, race)
        except LoopError as error:
            self.stop()
            self._owner.client_refused(str(error), LOOP)
            return
        except ClientRefusedError as error:
            self.stop()
            self._owner.client_refused(str(error))
            return
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR or self._is_full(error):
                self._start_again_later()
            elif self._failed(error):
                self._start_again_soon()
            return
        if self._may_be_pair() and self._is_waited_for():
            return
        if self._first.data and self._write_first(watched=False):
            return
        resources = self._forward.resources
        resources.reactor.watch(fd, READ_WRITE, self)
        if race is None:
            resources.connects.add(self)
        else:
            self._start_clock()
            race.began()

    def _dial(self, target: Target, race: Race | None) -> int:
        """Start to connect. Raises OSError, ClientRefusedError and LoopError."""
        address = race.at if race is not None else None
        if address is None and race is not None:
            raise OSError(0, "its service has no task now")
        if self._forward.resources.hops.is_on:
            return self._dial_counting(address)
        return target.dial(address, self._first.source, speaks=bool(self._first.data))

    def _dial_counting(self, address: SocketAddress | None) -> int:
        """Start to connect. Raises OSError, ClientRefusedError; LoopError for one of a loop."""
        forward = self._forward
        limit = forward.resources.hops.onward_of(self._first.client_fd)
        if not limit:
            raise LoopError(loop_text(forward.forward.listen, forward.forward.target))
        return forward.target.dial(
            address, self._first.source, limit, speaks=bool(self._first.data)
        )

    def _start_clock(self) -> None:
        """One time limit for all addresses together."""
        if self not in self._forward.resources.connects:
            self._forward.resources.connects.add(self)

    def _asks(self, target: Target) -> bool:
        """Choose the order of addresses; True: the resolver is asked before."""
        resources = self._forward.resources
        if not self._refreshed and target.renew(self._renewed):
            self._start_clock()
            return True
        addresses = self._order(target)
        if len(addresses) > 1 or target.live is not None:
            limit = self._forward.forward.limits.connect_timeout
            self._race = Race(self, resources.reactor, target, addresses, limit)
        return False

    def _order(self, target: Target) -> Sequence[SocketAddress]:
        """The addresses to try; what another node has passed on goes to tasks here alone."""
        addresses = target.order(self._first.source)
        live = target.live
        if live is None or not self._first.has_been_passed_on():
            return addresses
        return [address for address in addresses if not live.is_hop(address)]

    @property
    def went_to_hop(self) -> bool:
        """Whether the target is another v6fwd, whatever the mode is."""
        return self._first.is_for_hop

    @property
    def sent_header(self) -> bool:
        """Whether the target gets a PROXY header."""
        return self._first.header_size > 0

    @property
    def words(self) -> bytes:
        """What the client has said so far."""
        return self._first.words

    def stop(self) -> None:
        """Reset the target if one was tried, and report nothing any more."""
        self._done = True
        self._forward.resources.connects.discard(self)
        self._drop_target()
        if self._race is not None:
            self._race.close()
            self._race = None

    def _first_read(self) -> bool:
        """Make the header and read what the client has said; False: the client is gone."""
        try:
            self._first.read(to_hop=self._is_to_hop())
        except OSError:
            self.stop()
            self._owner.client_reset()
            return False
        return True

    def _is_to_hop(self) -> bool:
        if self._race is None or self._race.at is None:
            return False
        live = self._forward.target.live
        return live is not None and live.is_hop(self._race.at)

    # -- while another pump waits --

    def _may_be_pair(self) -> bool:
        is_plain = not self._forward.forward.target.path  # reads of a unix socket may end short
        return is_plain and self._race is None and not self._first.client_ended

    def _is_waited_for(self) -> bool:
        """Let the other pump wait, and move the bytes then; False if it does not."""
        if not self._owner.dialled(self._fd, self._first.data, self._first.header_size):
            return False
        self._fd, self._is_pair = -1, True
        if self._owner.is_joined():
            self._owner.pair_connected()
        else:
            self._start_clock()
        return True

    def wait_for_pair(self, header: bytes) -> None:
        """Another pump has dialled; it has what the client says, too."""
        self._first.became(header)
        self._is_pair = True
        self._start_clock()

    def joined(self) -> None:
        """The target has what was to come first, and the flow goes on without this."""
        self._done = True
        self._forward.resources.connects.discard(self)

    def pair_stopped(self, fd: int, stopped: Stopped) -> None:
        """The other pump does not wait any more: the target has failed, or the client has."""
        self._is_pair = False
        self._fd = fd
        self._first.came_back(stopped)
        if stopped.flags & Flags.BROKE_CLIENT:
            self.stop()
            self._owner.client_reset()
        elif stopped.reason == Reason.MEMORY:
            self._owner.on_exception(MemoryError())
        elif stopped.errno in _NO_DESCRIPTOR:
            self._drop_target()
            self._start_again_later()
        elif self._failed(OSError(errno.ETIMEDOUT if self._is_late else stopped.errno, "")):
            self.start()

    # -- what the target does --

    def on_event(self, mask: int) -> None:
        """The kernel has connected, or gave up."""
        fd = self._fd
        if mask & _FAILS and not is_connected(fd):
            error = pending_error(fd)
            if error and self._failed(OSError(error, "")):
                self.start()
            return
        if self._first_read() and self._write_first(watched=True):
            self._forward.resources.reactor.pass_on(fd, mask)

    def _write_first(self, *, watched: bool) -> bool:
        """Write the first bytes, and report; False where nothing can be written yet.

        Across a bridge or loopback the handshake is usually done when connect(2) returns.
        """
        fd, first = self._fd, self._first.data
        try:
            sent = os.write(fd, first) if first else 0
        except BlockingIOError:
            return False
        except OSError as error:
            if self._failed(error):
                self._start_again_soon()
            return True
        self._done = True
        self._forward.resources.connects.discard(self)
        if self._race is not None:
            self._race.won()
            self._race = None  # it knows us: no cycle is left for the collector
        self._owner.connected(
            fd,
            first[sent:],
            sent - self._first.header_size,
            watched=watched,
            client_ended=self._first.client_ended,
        )
        self._fd = -1  # not before: an exception there must not leak it
        return True

    def on_exception(self, error: Exception) -> None:
        """Give up the flow."""
        self._owner.on_exception(error)

    def expired(self) -> None:
        """The connect timeout has passed: there is no time for another address."""
        if self._race is not None:
            self._race.give_up()
            if self._forward.target.live is not None:
                self._race = None
        if not self._refreshed:
            self._refreshed = True
            self._forward.target.refresh(_nothing)
        if self._is_pair:
            self._is_late = True
            self._owner.leave_pair()
        else:
            self._failed(OSError(errno.ETIMEDOUT, ""))

    # -- other addresses --

    def try_next(self) -> None:
        """The address is silent: try the next one beside it."""
        race = self._race
        if race is not None and self._fd >= 0:
            race.set_aside(self._fd)
            self._fd = -1
            if race.at is not None:
                self.start()
            else:
                race.waits_for_others(self._others_came)

    def earlier_connected(self, fd: int, mask: int) -> None:
        """Use an address that was silent before; the present one is reset."""
        assert self._race is not None
        self._race.overtakes(fd)
        self._drop_target()
        self._fd = fd
        self._forward.resources.reactor.change_handler(fd, self)
        self.on_event(mask)

    def earlier_failed(self, error: OSError) -> None:
        """Give up if that was the last address that might have answered."""
        if self._race is not None and self._race.at is None:
            self._failed(error)

    def _failed(self, error: OSError) -> bool:
        """Give up the address, and where it was the last, ask what the resolver says now.

        True: there is another one, to be tried now.
        """
        connects, race = self._forward.resources.connects, self._race
        self._drop_target()
        if race is not None:
            if race.failed():
                return True
            if race.waits_for_others(self._others_came):
                self._start_clock()
                return False
            if race.waits:
                return False
            self._race = None
        connects.discard(self)
        if not self._refreshed and self._forward.target.refresh(self._resolved):
            self._refreshed = True
            connects.add(self)
        else:
            self._done = True
            self._owner.connect_failed(error)
        return False

    def _others_came(self) -> None:
        """Try other tasks beside those that are silent, and those again that refused."""
        race = self._race
        if self._done or race is None:
            return
        race.is_waiting = False
        if race.at is not None:  # one that was silent has answered
            return
        race.renew(self._order(self._forward.target))
        if race.at is not None or not race.waits:
            self._start_again()
        else:
            race.waits_for_others(self._others_came)

    def _drop_target(self) -> None:
        """Reset it: it may have been connected, and a clean end would say that all was well."""
        if self._fd >= 0:
            reset_on_close(self._fd)
            self._forward.resources.reactor.close_fd(self._fd)
            self._fd = -1

    def _resolved(self) -> None:
        """The resolver has answered: try from its first address, and then no more."""
        self._forward.resources.connects.discard(self)
        if not self._done:
            self._forward.resources.reactor.attempt(self, self._begin_anew)

    def _begin_anew(self) -> None:
        self._race = None  # it is over
        self._first.make_again(to_hop=self._is_to_hop())
        self.start()

    def _renewed(self) -> None:
        """The resolver has answered, or has been waited for long enough."""
        self._start_again()

    def _is_full(self, error: OSError) -> bool:
        """A unix socket whose queue is full refuses with EAGAIN, and tells nobody of room."""
        return error.errno == errno.EAGAIN and bool(self._forward.forward.target.path)

    def _start_again_soon(self) -> None:
        """After others had their turn: of a thousand addresses each may refuse at once."""
        self._start_clock()
        self._forward.resources.reactor.loop.call_soon(self._start_again)

    def _start_again_later(self) -> None:
        """Until the connect timeout: the client has been let in, and others will leave."""
        self._start_clock()
        self._forward.resources.reactor.loop.call_later(RETRY, self._start_again)

    def _start_again(self) -> None:
        if not self._done:
            self._forward.resources.reactor.attempt(self, self.start)


def _nothing() -> None:
    """Whoever asks the resolver for others has nothing to do with the answer."""
