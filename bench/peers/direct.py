"""No relay at all, as the limit: the host's kernel routes, as it does for IPv4 clients."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from bench.peers.base import Peer, Relay, Route
from bench.trial import Trial


class Direct(Peer):
    """The client dials the target's own IPv4 address; see bench/ground.py for the way there."""

    name = "direct"
    product = ""
    max_ports = 0

    def version(self) -> str:
        """See Peer."""
        return platform.release()

    def start(self, trial: Trial, routes: Sequence[Route]) -> Relay:
        """See Peer."""
        return Relay([(trial.ground.target_host, route.target) for route in routes], ())
