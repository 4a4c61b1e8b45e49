"""What a result says about the machine and the programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path

import psutil

from bench.peers.base import Peer, said

_TOOLS = {
    "iperf3": ("iperf3", "--version"),
    "ab": ("ab", "-V"),
    "wrk": ("wrk", "-v"),
    "redis": ("redis-server", "--version"),
    "nginx (target)": ("nginx", "-v"),
}
_DNS_TOOLS = {"dnsperf": ("dnsperf", "-h"), "unbound": ("unbound", "-V")}


def machine() -> dict[str, str]:
    """The machine, in words."""
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name", ":") or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 1e9:.1f} GB",
        "kernel": platform.release(),
        "system": _field(Path("/etc/os-release"), "PRETTY_NAME", "=") or platform.system(),
        "python": platform.python_version(),
    }


def versions(peers: Iterable[Peer]) -> dict[str, str]:
    """The versions of the peers and of the tools."""
    tools = {name: said(*command) for name, command in _TOOLS.items()}
    tools |= {
        name: said(*command, pattern=r"Version (\S+)") for name, command in _DNS_TOOLS.items()
    }
    return {peer.product: peer.version() for peer in peers if peer.product} | tools


def _field(path: Path, key: str, separator: str) -> str:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        name, _, value = line.partition(separator)
        if name.strip() == key:
            return value.strip().strip('"')
    return ""
