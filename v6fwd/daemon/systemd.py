"""The protocol between systemd and a service: sd_notify(3) and sd_listen_fds(3).

Both are plain: datagrams of `NAME=value` lines, and descriptors from 3 on. Without systemd the
environment names neither, and nothing here does anything.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass

from v6fwd.model import Endpoint, Protocol
from v6fwd.relay.sockets import address_of, listen_address, prepare_listener
from v6fwd.relay.udp_sockets import prepare_udp_listener

FIRST_FD = 3
"""SD_LISTEN_FDS_START."""

_KIND = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}

Environment = MutableMapping[str, str]


class Notifier:
    """Sends state changes to the service manager. A lost notification has no other effect."""

    def __init__(self, environ: Environment) -> None:
        """Remove the variables from the environment: no child may notify in our name."""
        path = environ.pop("NOTIFY_SOCKET", "")
        self._path = f"\0{path[1:]}" if path.startswith("@") else path
        self.watchdog_interval = _watchdog(environ)
        """Seconds between two `watchdog` calls, half of what is allowed; None: nobody waits."""

    def ready(self, status: str) -> None:
        """All listeners accept; after `reloading` too."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is being read; `ready` must follow."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self, status: str) -> None:
        """We drain."""
        self._send("STOPPING=1", f"STATUS={status}")

    def watchdog(self) -> None:
        """We are alive."""
        self._send("WATCHDOG=1")

    def successor(self, pid: int) -> None:
        """From now on the service is another process, unless it is 0: nobody knows."""
        if pid:
            self._send(f"MAINPID={pid}")

    def _send(self, *lines: str) -> None:
        if not self._path:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode("utf-8", "replace"), self._path)
        except OSError:
            pass


def _watchdog(environ: Environment) -> float | None:
    usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if not usec.isdecimal() or not int(usec) or pid not in ("", str(os.getpid())):
        return None
    return int(usec) / 2e6


@dataclass(frozen=True, slots=True)
class Inherited:
    """A socket that systemd has opened for us."""

    sock: socket.socket
    name: str
    """FileDescriptorName= of its unit, that is the unit's own name unless it says otherwise."""

    def __str__(self) -> str:
        kind = "udp" if self.sock.type == socket.SOCK_DGRAM else "tcp"
        if self.sock.family not in (socket.AF_INET, socket.AF_INET6):
            return f"{self.name}, no socket for TCP or UDP"
        return f"{self.name}, {address_of(self.sock.getsockname())}/{kind}"


def inherited_sockets(environ: Environment) -> list[Inherited]:
    """The sockets that were passed to this process; [] where there are none."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    found = []
    for number in range(int(count)):
        fd = FIRST_FD + number
        os.set_inheritable(fd, False)
        name = names[number] if number < len(names) and names[number] else "unknown"
        found.append(Inherited(socket.socket(fileno=fd), name))
    return found


def match(
    sockets: Iterable[Inherited], endpoints: Iterable[Endpoint]
) -> tuple[dict[Endpoint, list[socket.socket]], list[str]]:
    """Sockets by the endpoint that they are bound to, made ready; and what to warn of.

    Those that belong to none of `endpoints` are closed. Raises OSError.
    """
    wanted = {_bound(endpoint): endpoint for endpoint in endpoints}
    matched: dict[Endpoint, list[socket.socket]] = {}
    warnings: list[str] = []
    for each in sockets:
        sock = each.sock
        endpoint = wanted.get((sock.type, sock.family, sock.getsockname()))
        if endpoint is None:
            warnings.append(f"systemd passed a socket ({each}) that is no forward's; closed")
            sock.close()
            continue
        matched.setdefault(endpoint, []).append(sock)
        _prepare(sock)
        if endpoint.host == "::" and sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            warnings.append(
                f"systemd's socket for {endpoint} ({each.name}) takes IPv6 alone;"
                " write BindIPv6Only=both into its unit"
            )
    return matched, warnings


def _bound(endpoint: Endpoint) -> tuple[int, int, object]:
    """How a socket looks that is bound there: type, family, getsockname(2)."""
    kind = _KIND[endpoint.protocol]
    return kind, *listen_address(endpoint, kind)


def _prepare(sock: socket.socket) -> None:
    if sock.type == socket.SOCK_DGRAM:
        prepare_udp_listener(sock)
    else:
        prepare_listener(sock)
