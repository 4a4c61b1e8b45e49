"""A TCP forward at work: what its flows need to know of it."""

from __future__ import annotations

from v6fwd.client_ip.trust import TrustedNetworks
from v6fwd.model import Address, ClientIP, Forward
from v6fwd.model.lean import TYPE_CHECKING, dataclass
from v6fwd.relay.admission import BANNED, REFUSED, UNCOUNTED, Admission, admission_of, refuse
from v6fwd.relay.counters import Counters, count
from v6fwd.relay.targets.mismatch import Looks
from v6fwd.relay.targets.target import Target
from v6fwd.relay.tcp.resources import TcpResources

if TYPE_CHECKING:
    from v6fwd.client_ip.proxy.write import HeaderWriter


@dataclass(frozen=True, slots=True)
class TcpForward:
    """A Forward with its target, counters and resources. Flows keep the one they began with."""

    forward: Forward
    target: Target
    resources: TcpResources
    counters: Counters
    trusted: TrustedNetworks | None
    """Clients that have to send a PROXY header."""
    write_header: HeaderWriter | None
    """Makes the PROXY header for the target."""
    needs_source: bool
    """Whether a flow has to know its client's address when it begins."""
    admission: Admission | None
    looks: Looks
    """Which flows are looked at to see whether the target understands the mode."""

    def judge_banned(self, source: Address) -> int:
        """REFUSED, counted and logged, for a client that is banned; else UNCOUNTED."""
        resources = self.resources
        if source.packed not in resources.bans:
            return UNCOUNTED
        refuse(source, self.forward.listen, BANNED, self.counters.refused, resources.log)
        return REFUSED

    def note_shown(self, source: Address | None) -> None:
        """Count a client in mode `transparent` that the target does not see as it is."""
        if source is not None and (instead := self.target.shown_instead(source)):
            count(self.counters.not_real, instead)


def tcp_forward(
    forward: Forward, target: Target, resources: TcpResources, counters: Counters
) -> TcpForward:
    """Derive from a Forward what its flows need. `counters` outlive a change of the Forward."""
    networks, mode = forward.accept_proxy, forward.client_ip
    if networks or forward.mesh.netns:  # what their flows import: now, not when a client comes
        import v6fwd.client_ip.proxy.write
        import v6fwd.relay.tcp.proxy_header  # noqa: F401
    write_header = target.header_writer(_header_writer(mode))
    return TcpForward(
        forward=forward,
        target=target,
        resources=resources,
        counters=counters,
        trusted=TrustedNetworks(networks) if networks else None,
        write_header=write_header,
        needs_source=bool(write_header or networks or resources.log_flows)
        or mode.is_http
        or mode is ClientIP.TRANSPARENT
        or bool(forward.mesh.netns),
        admission=admission_of(forward, resources.clients, counters.refused, resources.log),
        looks=Looks(forward.listen, counters, resources.heard),
    )


def _header_writer(mode: ClientIP) -> HeaderWriter | None:
    if mode is ClientIP.NONE:
        return None
    from v6fwd.client_ip.proxy.write import header_writer

    return header_writer(mode)
