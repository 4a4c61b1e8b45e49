"""dockerd as a process: its ingress_sbox, and the listening sockets that it holds and never reads.

dockerd keeps a published port by a dual-stack listening socket of its own. Its rules for IPv4 are
before that socket; whoever comes over IPv6 is in its queue for ever. pidfd_getfd(2) gives it to us.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from v6fwd.docker.shim.process import PIDFD_GETFD
from v6fwd.errors import RelayError, reason
from v6fwd.model import Endpoint, Protocol
from v6fwd.netns.handle import Handle, identity
from v6fwd.netns.owners import PROC, named
from v6fwd.netns.view import ListeningSockets, View
from v6fwd.relay.sockets import open_listener
from v6fwd.relay.udp_sockets import open_udp_listener

_SANDBOX_RE = re.compile(r"^(?:\S+ ){4}(\S+/netns/ingress_sbox) .* - nsfs ", re.MULTILINE)
_ESCAPED_RE = re.compile(r"\\([0-7]{3})")
_OPEN = {Protocol.TCP: open_listener, Protocol.UDP: open_udp_listener}

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The namespace ingress_sbox as it is now. `pid` is dockerd's."""

    path: str
    identity: str
    pid: int

    def listen(self, endpoint: Endpoint) -> socket.socket:
        """Listen inside, for what comes by the device of that address. Raises RelayError.

        The namespace is in docker_gwbridge, too, where this node's containers are.
        """
        try:
            with contextlib.closing(Handle(self.path)) as handle, handle.entered():
                device = _device_of(endpoint.host)
                sock = _OPEN[endpoint.protocol](endpoint)
        except OSError as error:
            raise RelayError(f"cannot listen in {self.path}: {reason(error)}") from error
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
        except OSError as error:
            sock.close()
            raise RelayError(f"cannot listen on {endpoint} alone: {reason(error)}") from error
        return sock


class SandboxKeeper:
    """Holds ingress_sbox open: the path that dockerd has of it may end with dockerd."""

    def __init__(self) -> None:
        self._fd = -1
        self.sandbox: Sandbox | None = None
        """Which one."""

    def keep(self, sandbox: Sandbox) -> str:
        """Return a path of it that is good as long as we live. Raises OSError."""
        if self.sandbox is None or sandbox.identity != self.sandbox.identity:
            fd = os.open(sandbox.path, os.O_RDONLY | os.O_CLOEXEC)
            self.close()
            self._fd = fd
        self.sandbox = sandbox
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def close(self) -> None:
        """Let go."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self.sandbox = -1, None


def _device_of(address: str) -> bytes:
    """Raises OSError where no device has it."""
    with contextlib.closing(View()) as view:
        for each in view.device_addresses():
            if each.address == address:
                return each.device.encode()
    raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))


def find_sandbox(proc: Path = PROC, before: Sandbox | None = None) -> Sandbox:
    """Return the ingress_sbox of the dockerd in our network. Raises RelayError.

    `before`: the answer to the last question; all processes are looked at if that dockerd ended.
    """
    if before is not None and _is_dockerd(before.pid, proc):
        again = _sandbox_of(before.pid, proc)
        if again is not None:
            return Sandbox(*again, before.pid)
    found = [
        Sandbox(*sandbox, process.pid)
        for process in named("dockerd", proc)
        if (sandbox := _sandbox_of(process.pid, proc)) is not None
    ]
    if len({sandbox.identity for sandbox in found}) > 1:
        raise RelayError("several dockerd in this network are in a swarm")
    if not found:
        raise RelayError("no dockerd in this network has a namespace ingress_sbox that can be seen")
    return found[0]


def _is_dockerd(pid: int, proc: Path) -> bool:
    try:
        return (proc / str(pid) / "comm").read_text().strip() == "dockerd"
    except (OSError, UnicodeDecodeError):
        return False


def _sandbox_of(pid: int, proc: Path) -> tuple[str, str] | None:
    """Return path and identity. The path is ours if we see that mount: it outlives dockerd."""
    try:
        mounts = (proc / str(pid) / "mountinfo").read_text(errors="surrogateescape")
        match = _SANDBOX_RE.search(mounts)
        if match is None:
            return None
        path = _ESCAPED_RE.sub(lambda each: chr(int(each[1], 8)), match[1])
        inside = f"{proc}/{pid}/root{path}"
        there = identity(os.stat(inside))
    except OSError:
        return None
    with contextlib.suppress(OSError):
        if identity(os.stat(path)) == there:
            return path, there
    return inside, there


class HeldSockets:
    """The sockets that a dockerd listens with, by port, as they are now."""

    def __init__(self, pid: int, proc: Path = PROC) -> None:
        self._pid = pid
        self._found: dict[tuple[int, Protocol], int] = {}
        inodes = dict(_descriptors(pid, proc))
        with contextlib.suppress(OSError), contextlib.closing(ListeningSockets()) as sockets:
            for each in sockets.all():
                if each.is_any and each.inode in inodes:
                    self._found[each.port, each.protocol] = inodes[each.inode]

    def protocols(self) -> Mapping[int, list[Protocol]]:
        """Return the protocols of each port."""
        found: dict[int, list[Protocol]] = {}
        for port, protocol in self._found:
            found.setdefault(port, []).append(protocol)
        return found

    def take(self, listen: Endpoint) -> int:
        """Return a copy of the descriptor of a port; -1: dockerd has none. Raises OSError."""
        fd = self._found.get((listen.port, listen.protocol), -1)
        if fd < 0:
            return -1
        pidfd = os.pidfd_open(self._pid)
        try:
            taken = int(_libc.syscall(PIDFD_GETFD, pidfd, fd, 0))
        finally:
            os.close(pidfd)
        if taken < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return taken


def _descriptors(pid: int, proc: Path) -> Iterator[tuple[int, int]]:
    """Yield inode and number of each socket of a process."""
    with contextlib.suppress(OSError), os.scandir(proc / str(pid) / "fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError, ValueError):
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    yield int(target[8:-1]), int(entry.name)
