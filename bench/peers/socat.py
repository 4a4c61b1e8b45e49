"""socat, which people reach for to try things: a process a connection."""

from __future__ import annotations

from collections.abc import Sequence

from bench.peers.base import Peer, Relay, Route, said
from bench.trial import Trial


class Socat(Peer):
    """Left out where there are many flows or ports at once: each would be a process."""

    name = "socat"
    product = "socat"
    programs = ("socat",)
    max_flows = 8
    max_ports = 1
    no_udp = "makes a process for each datagram (UDP6-RECVFROM,fork)"

    def version(self) -> str:
        """See Peer."""
        return said("socat", "-V", pattern=r"socat version (\S+)")

    def start(self, trial: Trial, routes: Sequence[Route]) -> Relay:
        """See Peer."""
        (route,) = routes
        ground = trial.ground
        listen = f"TCP6-LISTEN:{route.listen},bind=[{ground.listen_host}],ipv6only=0,"
        listen += "fork,reuseaddr,backlog=1024,nodelay"
        target = f"TCP4:{ground.target_host}:{route.target},nodelay"
        process = trial.start("host", "socat", listen, target)
        trial.wait_for_ports(process, [route.listen], self.name)
        return self._relay(trial, routes, [process.pid])
