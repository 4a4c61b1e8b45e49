"""For tests with plain sockets in the hosts of a lab, or that look at rules and routes there."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from tests.support.process import PATIENCE
from v6fwd.demo.lab import Lab
from v6fwd.netns.namespace import Namespace

V4, V6 = socket.AF_INET, socket.AF_INET6
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM

SYSCTLS = (
    "net.ipv6.conf.lo.disable_ipv6",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv4.tcp_fwmark_accept",
    "net.ipv4.fwmark_reflect",
    "net.ipv4.ip_nonlocal_bind",
)


def family_of(host: str) -> int:
    """AF_INET or AF_INET6."""
    return V6 if ":" in host else V4


@contextlib.contextmanager
def inside(lab: Lab, host: str) -> Iterator[None]:
    """Be in a host's namespace."""
    namespace = Namespace(lab.namespace(host))
    try:
        with namespace.entered():
            yield
    finally:
        namespace.close()


def sock(lab: Lab, host: str, family: int, kind: int = TCP) -> socket.socket:
    """A socket in a host's namespace, on which nothing waits for ever."""
    with inside(lab, host):
        made = socket.socket(family, kind)
    made.settimeout(PATIENCE)
    return made


def server(lab: Lab, address: str, port: int, kind: int = TCP, host: str = "container") -> Any:
    """Somebody who listens; `::` is dual-stack, as with most servers."""
    made = sock(lab, host, family_of(address), kind)
    if kind == TCP:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if address == "::":
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.bind((address, port))
    if kind == TCP:
        made.listen(128)
    return made


def client(
    lab: Lab, host: str, address: str, port: int, *, source: Any = None, kind: int = TCP
) -> socket.socket:
    """Somebody on a host who has connected to an address, from `source` if that is given."""
    made = sock(lab, host, family_of(address), kind)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if source is not None:
            made.bind(source)
        made.connect((address, port))
    except BaseException:
        made.close()
        raise
    return made


def plain(address: Any) -> tuple[str, int]:
    """Host and port of a socket address, v4-mapped ones as the IPv4 address that they are."""
    return address[0].removeprefix("::ffff:"), address[1]


def in_place(lab: Lab, host: str = "container") -> dict[str, str]:
    """All rules, routes, addresses and sysctls of a host that v6fwd might change, as ip(8) says.

    Without the link-local ones, which come and go as links do.
    """
    commands = {
        "rules": "ip -4 rule; ip -6 rule",
        "routes": "for f in 4 6; do ip -$f route show table all; done | grep -v -e fe80: -e ff00:",
        "addresses": "ip -oneline address | grep -v fe80:",
        "sysctls": f"sysctl {' '.join(SYSCTLS)}",
    }
    return {name: lab.run(host, "sh", "-c", words).stdout for name, words in commands.items()}
