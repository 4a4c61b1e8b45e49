"""HAProxy in tcp mode, with splice."""

from __future__ import annotations

from collections.abc import Sequence

from bench.peers.base import (
    HEADER_OFF,
    HEADER_ON,
    MANY_AT_ONCE,
    Peer,
    Relay,
    Route,
    descriptor_limit,
    said,
)
from bench.trial import Trial

_HEAD = """\
global
    maxconn {most}
{threads}defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    option splice-auto
"""
_LISTEN = """\
listen port{route.listen}
    bind [{ground.listen_host}]:{route.listen} v4v6
    server target {ground.target_host}:{route.target}{header}
"""


class HAProxy(Peer):
    """One process, a thread a core (its default), or as many threads as are asked for."""

    product = "haproxy"
    programs = ("haproxy",)
    no_udp = "relays no UDP"

    def __init__(self, header: str = HEADER_OFF, threads: int = 0) -> None:
        self.header = header
        self.threads = threads
        self.name = "haproxy-proxy-v2" if header == HEADER_ON else "haproxy"
        if threads:
            self.name += f"-{threads}"
            self.only = MANY_AT_ONCE

    def version(self) -> str:
        """See Peer."""
        return said("haproxy", "-v")

    def config(self, trial: Trial, routes: Sequence[Route]) -> str:
        """The text of haproxy.cfg."""
        header = " send-proxy-v2" if self.header == HEADER_ON else ""
        blocks = [
            _LISTEN.format(ground=trial.ground, route=route, header=header) for route in routes
        ]
        threads = f"    nbthread {self.threads}\n" if self.threads else ""
        return _HEAD.format(most=most_connections(), threads=threads) + "".join(blocks)

    def start(self, trial: Trial, routes: Sequence[Route]) -> Relay:
        """See Peer."""
        path = trial.write("haproxy.cfg", self.config(trial, routes))
        process = trial.start("host", "haproxy", "-db", "-f", path)
        trial.wait_for_ports(process, [route.listen for route in routes], self.name)
        return self._relay(trial, routes, [process.pid])


def most_connections() -> int:
    """The maxconn that the descriptors hold: with a higher one HAProxy refuses to start.

    A connection takes two of them, and up to half a pipe.
    """
    return min(6000, (descriptor_limit() - 500) // 3)
