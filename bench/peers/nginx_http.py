"""nginx as an HTTP proxy: X-Forwarded-For and its like on each request."""

from __future__ import annotations

from collections.abc import Sequence

from bench.peers.base import HEADER_HTTP, Peer, Route, descriptor_limit
from bench.peers.nginx import Nginx
from bench.trial import Trial

_HEAD = """\
daemon off;
worker_processes auto;
pid {folder}/nginx.pid;
error_log stderr crit;
worker_rlimit_nofile {descriptors};
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    proxy_http_version 1.1;
    proxy_request_buffering off;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Port $server_port;
    proxy_set_header X-Real-IP $remote_addr;
"""
_SERVER = """\
    upstream target{route.target} {{
        server {ground.target_host}:{route.target};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen [{ground.listen_host}]:{route.listen} ipv6only=off;
        location / {{ proxy_pass http://target{route.target}; }}
    }}
"""
_CONNECTIONS = 9000
"""For a worker."""


class NginxHttp(Nginx):
    """A worker a core; connections to the target are kept. Answers are buffered as it comes.

    proxy_request_buffering off: like all other peers it passes a body on as it comes; it would
    write each into a file first, at three times the CPU. keepalive_requests: no other peer ends a
    connection after its thousandth request.
    """

    def __init__(self) -> None:
        super().__init__(HEADER_HTTP)
        self.name = "nginx-http"

    def obstacle(self) -> str | None:
        """See Peer. It needs no stream module."""
        return Peer.obstacle(self)

    def config(self, trial: Trial, routes: Sequence[Route]) -> str:
        """See Nginx."""
        descriptors = descriptor_limit()
        head = _HEAD.format(
            folder=trial.folder,
            descriptors=descriptors,
            connections=min(_CONNECTIONS, descriptors - 500),
        )
        servers = [_SERVER.format(ground=trial.ground, route=route) for route in routes]
        return f"{head}{''.join(servers)}}}\n"
