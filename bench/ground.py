"""Where a run happens: in network namespaces joined by veth, like the real path, or on loopback.

In namespaces, `direct` (no relay) takes the way that IPv4 clients have with Docker: the client
dials the container's IPv4 address, and the host's kernel routes it. It needs a route on the
client and forwarding on the host, which other peers neither use nor feel.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from v6fwd.demo import lab as lab_network
from v6fwd.demo.lab import HOSTS, Lab

_CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")
_FIRST_PORT, _LAST_PORT = 10_000, 30_000  # below the ports that connections leave from


class Ground:
    """Three hosts: client, host (the relay's) and container (the target's)."""

    name: str
    words: str
    client: str
    listen_host: str
    dial_host: str
    target_host: str
    target_netns: str = ""
    """The name of the target's network namespace, "" where it has none of its own."""

    def __init__(self) -> None:
        self._next_port = itertools.count(_FIRST_PORT)

    def command(self, host: str, words: Sequence[str]) -> list[str]:
        """The command that runs `words` on a host."""
        raise NotImplementedError

    def congestion(self) -> str:
        """TCP's congestion control. It decides about bulk data: bbr paces, and starts timers."""
        return _CONGESTION.read_text().strip()

    def use_congestion(self, name: str) -> str:
        """Use another; gives why that cannot be, or ""."""
        raise NotImplementedError

    def ports(self, count: int = 1) -> range:
        """That many ports in a row that nobody listens on, different ones each time."""
        while True:
            ports = range(first := next(self._next_port), first + count)
            if ports.stop > _LAST_PORT:
                self._next_port = itertools.count(_FIRST_PORT)
            elif self._are_free(ports):
                self._next_port = itertools.count(ports.stop)
                return ports

    def _are_free(self, ports: range) -> bool:
        return bool(ports)


class Namespaces(Ground):
    """The lab network of namespaces; needs root."""

    name = "namespaces"
    words = "network namespaces joined by veth: client, host and IPv4-only container"
    client = lab_network.CLIENT_V6
    listen_host = "::"
    dial_host = lab_network.HOST_V6
    target_host = lab_network.CONTAINER_V4

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self._lab = lab
        self.target_netns = lab.namespace("container")
        lab.ip("client", "route", "add", f"{lab_network.CONTAINER_V4}/32",
               "via", lab_network.HOST_V4)  # fmt: skip
        lab.run("host", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")

    def congestion(self) -> str:
        """See Ground."""
        return self._lab.run("host", "cat", str(_CONGESTION)).stdout.strip()

    def use_congestion(self, name: str) -> str:
        """See Ground. The kernel allows those of net.ipv4.tcp_allowed_congestion_control."""
        for host in HOSTS:
            self._lab.run(host, "sh", "-c", 'echo "$1" >"$0"', str(_CONGESTION), name)
        now = self.congestion()
        return "" if now == name else f"{name} is not allowed in a namespace; it is {now}"

    def command(self, host: str, words: Sequence[str]) -> list[str]:
        """See Ground."""
        return self._lab.command(host, *words)


class Loopback(Ground):
    """One host: the client is ::1, the target is on 127.0.0.1."""

    name = "loopback"
    words = "loopback of one host"
    client = "::1"
    listen_host = "::1"
    dial_host = "::1"
    target_host = "127.0.0.1"

    def __init__(self) -> None:
        """Begin at any port: others may run on this host at the same time."""
        super().__init__()
        self._next_port = itertools.count(random.randrange(_FIRST_PORT, _LAST_PORT))

    def command(self, host: str, words: Sequence[str]) -> list[str]:  # noqa: ARG002
        """See Ground."""
        return list(words)

    def _are_free(self, ports: range) -> bool:
        with contextlib.ExitStack() as held:
            kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
            for port, kind in itertools.product(ports, kinds):
                sock = held.enter_context(socket.socket(socket.AF_INET6, kind))
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                if kind == socket.SOCK_STREAM:  # for UDP it would hide who has the port
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    sock.bind(("::", port))
                    if kind == socket.SOCK_STREAM:
                        sock.listen()
                except OSError:
                    return False
        return True


@contextlib.contextmanager
def find_ground(*, loopback: bool) -> Iterator[Ground]:
    """The ground of a run, removed at its end with all that it holds."""
    if loopback:
        yield Loopback()
        return
    with Lab() as lab:
        yield Namespaces(lab)
