"""HAProxy in http mode: X-Forwarded-For and its like on each request."""

from __future__ import annotations

from collections.abc import Sequence

from bench.peers.base import HEADER_HTTP, Route
from bench.peers.haproxy import HAProxy, most_connections
from bench.trial import Trial

# splice-auto finds hardly any body of 1 MiB worth a splice: it takes two to five times the CPU.
_HEAD = """\
global
    maxconn {most}
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    option splice-request
    option splice-response
"""
# forwardfor adds to what the client sent under that name; v6fwd and nginx put theirs in its place.
_LISTEN = """\
listen port{route.listen}
    bind [{ground.listen_host}]:{route.listen} v4v6
    option forwardfor
    http-request del-header X-Forwarded-For
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Port %[dst_port]
    http-request set-header X-Real-IP %[src]
    server target {ground.target_host}:{route.target}
"""


class HAProxyHttp(HAProxy):
    """Connections to the target are kept and shared as its defaults have it (http-reuse safe)."""

    def __init__(self) -> None:
        super().__init__(HEADER_HTTP)
        self.name = "haproxy-http"

    def config(self, trial: Trial, routes: Sequence[Route]) -> str:
        """See HAProxy."""
        blocks = [_LISTEN.format(ground=trial.ground, route=route) for route in routes]
        return _HEAD.format(most=most_connections()) + "".join(blocks)
