"""The peers, in the order in which they are shown. To add one, write its class and list it."""

from __future__ import annotations

from bench.peers.base import HEADER_HTTP, HEADER_ON, TRANSPARENT, Peer
from bench.peers.direct import Direct
from bench.peers.docker_proxy import DockerProxy
from bench.peers.haproxy import HAProxy
from bench.peers.haproxy_http import HAProxyHttp
from bench.peers.limit import Limit
from bench.peers.nginx import Nginx
from bench.peers.nginx_http import NginxHttp
from bench.peers.socat import Socat
from bench.peers.v6fwd import V6fwd
from bench.peers.v6fwd_serve import V6fwdServe

PEERS: tuple[Peer, ...] = (
    V6fwd(),
    DockerProxy(),
    HAProxy(),
    Nginx(),
    Socat(),
    Direct(),
    Limit("epoll"),
    Limit("ring"),
    V6fwdServe(2),
    HAProxy(threads=2),
    Nginx(workers=2),
    V6fwd(HEADER_ON),
    V6fwd(TRANSPARENT),
    HAProxy(HEADER_ON),
    Nginx(HEADER_ON),
    V6fwd(HEADER_HTTP),
    HAProxyHttp(),
    NginxHttp(),
)
