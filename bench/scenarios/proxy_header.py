"""What a PROXY header in front of each connection costs, on and off."""

from __future__ import annotations

from bench.peers.base import HEADER_ON, Peer
from bench.scenarios.base import RATE_FIGURES, Scenario, Size, set_up
from bench.scenarios.connections import load_with_ab
from bench.targets import BODY, Web
from bench.trial import Trial, TrialError, helper_command

_AT_ONCE = 20
_COUNT = Size(2500, 15000)


class ProxyHeader(Scenario):
    """Unit of work: a connection, as in connections-20. The target reads the header.

    Before the load, the target must name the client itself to a request through the peer.
    """

    name = "proxy-header"
    title = "new connections, 20 at once, PROXY header on and off"
    work = "connection"
    family = "proxy header"
    axis = "connections at once"
    at = _AT_ONCE
    programs = ("ab", "nginx")
    figures = RATE_FIGURES

    def is_about(self, peer: Peer) -> bool:
        """Those that send a header, and the same ones without."""
        return peer.header == HEADER_ON or peer.name in ("v6fwd", "haproxy", "nginx")

    def measure(self, trial: Trial, peer: Peer, *, quick: bool) -> dict[str, float]:
        """See Scenario."""
        relay = set_up(trial, peer, Web())
        port = str(relay.port)
        told = trial.run("client", *helper_command("answers"), relay.host, port, port)
        wanted = f"{trial.ground.client}\n" if peer.header == HEADER_ON else BODY
        if told != f"asking\n{wanted}":
            raise TrialError(f"the target answered {told!r}, not {wanted!r}")
        return load_with_ab(trial, relay, _COUNT.of(quick=quick), _AT_ONCE)
