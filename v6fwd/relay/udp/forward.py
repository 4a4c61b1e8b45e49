"""A UDP forward at work: what its listener and its sessions share."""

from __future__ import annotations

import errno
from collections.abc import Callable

from v6fwd.client_ip.proxy.write import HeaderWriter, datagram_header_writer
from v6fwd.errors import ClientRefusedError
from v6fwd.model import Address, Forward
from v6fwd.relay.admission import LOOP, NOT_PRESERVED, tell_refused
from v6fwd.relay.counters import Counters, count
from v6fwd.relay.limits.hops import loop_text
from v6fwd.relay.targets.target import Target, tell_failed
from v6fwd.relay.udp.pktinfo import Family
from v6fwd.relay.udp.resources import UdpCounters, UdpResources

_FULL = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}


class UdpForward:
    """Configuration, target and counters of one listening socket.

    `configure` may replace the configuration; a session keeps the Forward that it began with.
    """

    def __init__(self, fd: int, family: Family, forget: Callable[[bytes], object]) -> None:
        """Serve the listening socket `fd`; `forget` is told the key of a session that ended."""
        self.fd = fd
        """The listening socket, from which replies are sent."""
        self.family = family
        """How addresses look on that socket."""
        self.forget = forget
        self.counters = UdpCounters()
        self.flows = Counters()

    def configure(self, forward: Forward, target: Target, resources: UdpResources) -> None:
        """Serve new clients like this from now on."""
        self.forward = forward
        self.target = target
        self.resources = resources
        self.write_header: HeaderWriter | None = target.header_writer(
            datagram_header_writer(forward.client_ip)
        )

    # -- what goes wrong: counted, and told with a limit --

    def lost(self, error: OSError) -> None:
        """Count a datagram that the kernel did not take."""
        if error.errno == errno.EMSGSIZE:
            self.counters.too_large += 1
        elif error.errno in _FULL:
            self.counters.full += 1
        else:
            self.counters.failed += 1

    def too_large(self, key: bytes, count: int) -> None:
        """Count datagrams of a client that leave no room for the header that the target wants."""
        self.counters.too_large += count
        client, listen = self.family.client(key), self.forward.listen
        self.resources.log.limited(
            f"too large {listen}",
            "too-large",
            f"dropped a datagram of {client} on {listen}: too large with its PROXY header",
            client=client,
            listen=listen,
        )

    def header_refused(self, key: bytes, why: str) -> None:
        """Count a datagram of a trusted client whose PROXY header cannot be read."""
        self.counters.no_header += 1
        self.flows.header_refused += 1
        self._tell_refused(key, why, "header")

    def not_preserved(self, key: bytes, error: ClientRefusedError) -> None:
        """Count a client whose address cannot be preserved and that is refused for it."""
        count(self.flows.refused, NOT_PRESERVED)
        self._tell_refused(key, str(error), "client")

    def note_shown(self, source: Address) -> None:
        """Count a client in mode `transparent` that the target does not see as it is."""
        if instead := self.target.shown_instead(source):
            count(self.flows.not_real, instead)

    def would_loop(self, key: bytes) -> None:
        """Count a datagram whose source is a listener of ours."""
        count(self.flows.refused, LOOP)
        self._tell_refused(key, "its source is one of v6fwd's own listeners", "client")

    def came_round(self, key: bytes) -> None:
        """Count a client that is another session of a loop."""
        count(self.flows.refused, LOOP)
        self._tell_refused(key, loop_text(self.forward.listen, self.forward.target), "client")

    def target_failed(self, client: Address, error: OSError) -> None:
        """Count a target that cannot be reached."""
        tell_failed(self.resources.log, self.flows, self.forward, client, "reach", error)

    def on_exception(self, error: Exception) -> None:
        """Log a defect; the listener lives on."""
        self.resources.log.limited(
            "defect", "defect", f"internal error on {self.forward.listen}: {error!r}"
        )

    def _tell_refused(self, key: bytes, why: str, what: str) -> None:
        tell_refused(self.resources.log, what, self.family.client(key), self.forward.listen, why)
