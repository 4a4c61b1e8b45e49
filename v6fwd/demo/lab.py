"""The lab network: three network namespaces for a client, a Docker host and a container.

    client     2001:db8:1::2, 203.0.113.2
      veth
    host       2001:db8:1::1, 203.0.113.1; bridge 172.17.42.1/16
      veth
    container  172.17.0.2

All names contain this process's id, so several labs can coexist. Leaving the `with` block ends
the processes started in it and removes the namespaces, and with them every link.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Any

CLIENT_V6, CLIENT_V4 = "2001:db8:1::2", "203.0.113.2"
HOST_V6, HOST_V4 = "2001:db8:1::1", "203.0.113.1"
BRIDGE_V4, CONTAINER_V4 = "172.17.42.1", "172.17.0.2"
HOSTS = ("client", "host", "container")

_serial = itertools.count()


def lab_obstacle() -> str | None:
    """Why no lab can be built on this machine, in a few words; None if it can."""
    if os.geteuid() != 0:
        return "not root"
    if shutil.which("ip") is None:
        return "no ip command (iproute2)"
    name = f"v6fwd-{os.getpid()}-try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if tried.returncode:
        return "no permission to make network namespaces"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return None


class Lab:
    """The three namespaces, and the processes that run in them."""

    def __init__(self) -> None:
        token = f"{os.getpid()}-{next(_serial)}"
        self._names = {host: f"v6fwd-{token}-{host}" for host in HOSTS}
        self._processes: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Lab:
        try:
            for host in HOSTS:
                _ip("netns", "add", self._names[host])
                self.ip(host, "link", "set", "lo", "up")
            self._join_client_and_host()
            self._join_host_and_container()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def namespace(self, host: str) -> str:
        """The host's name for ip-netns(8)."""
        return self._names[host]

    def command(self, host: str, *words: str) -> list[str]:
        """The command that runs `words` on a host."""
        return ["ip", "netns", "exec", self._names[host], *words]

    def ip(self, host: str, *words: str) -> None:
        """Run `ip WORDS` in a host's namespace. Raises subprocess.CalledProcessError."""
        _ip("-n", self._names[host], *words)

    def run(self, host: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on a host and wait for it; options are those of subprocess.run."""
        settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60}
        return subprocess.run(self.command(host, *words), check=False, **settings | options)

    def start(self, host: str, *words: str, **options: Any) -> subprocess.Popen[Any]:
        """Start a process on a host; the lab ends it when it closes."""
        process: subprocess.Popen[Any] = subprocess.Popen(self.command(host, *words), **options)
        self._processes.append(process)
        return process

    def _link(self, one: str, name: str, other: str, peer: str) -> None:
        # Called in one of them: Linux 6.1 refuses a name that a link of the caller has.
        ends = ("type", "veth", "peer", "name", peer, "netns", self._names[other])
        self.ip(one, "link", "add", name, *ends)

    def _join_client_and_host(self) -> None:
        self._link("client", "eth0", "host", "eth0")
        ends = (("client", CLIENT_V6, CLIENT_V4), ("host", HOST_V6, HOST_V4))
        for name, v6, v4 in ends:
            # nodad: no second of duplicate address detection before the address can be used
            self.ip(name, "address", "add", f"{v6}/64", "dev", "eth0", "nodad")
            # no link-local address: its duplicate address detection would delay neighbour discovery
            self.ip(name, "link", "set", "eth0", "addrgenmode", "none")
            self.ip(name, "address", "add", f"{v4}/24", "dev", "eth0")
            self.ip(name, "link", "set", "eth0", "up")

    def _join_host_and_container(self) -> None:
        self.ip("host", "link", "add", "docker0", "type", "bridge")
        self._link("host", "veth0", "container", "eth0")
        self.ip("host", "link", "set", "veth0", "master", "docker0", "up")
        self.ip("host", "address", "add", f"{BRIDGE_V4}/16", "dev", "docker0")
        self.ip("host", "link", "set", "docker0", "up")
        self.ip("container", "address", "add", f"{CONTAINER_V4}/16", "dev", "eth0")
        self.ip("container", "link", "set", "eth0", "up")
        self.ip("container", "route", "add", "default", "via", BRIDGE_V4)

    def _remove(self) -> None:
        for process in self._processes:
            stop(process)
        self._processes.clear()
        for name in self._names.values():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def stop(process: subprocess.Popen[Any], grace: float = 5.0) -> int:
    """Terminate a process, kill it after `grace` seconds, and return its exit status."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
    status = process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    return status


def _ip(*words: str) -> None:
    command: Sequence[str] = ["ip", *words]
    subprocess.run(command, check=True, capture_output=True)
