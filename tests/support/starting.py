"""For tests of a container that starts: a namespace with a process first, then a device."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.process import eventually
from v6fwd.demo.lab import Lab

Attach = Callable[[Lab, str], None]
"""Gives a namespace a device whose other end is on the lab's host."""


@contextlib.contextmanager
def new_namespace(lab: Lab) -> Iterator[str]:
    """One that no device leads to yet; gives its name."""
    name = f"{lab.namespace('container')}-new"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def as_engine_20_10(lab: Lab, name: str) -> None:
    """Make a pair on the host, then move one end."""
    lab.ip("host", "link", "add", "veth1", "type", "veth", "peer", "name", "veth2")
    lab.ip("host", "link", "set", "veth2", "netns", name)


def as_engine_28(lab: Lab, name: str) -> None:
    """Make a pair with one end where it is wanted."""
    lab.ip("host", "link", "add", "veth1", "type", "veth", "peer", "name", "eth0", "netns", name)


@contextlib.contextmanager
def running_in(name: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process that waits there to become a container's first one."""
    wanted = Path("/run/netns", name).stat().st_ino
    process = subprocess.Popen(["ip", "netns", "exec", name, "sleep", "60"])
    link = Path(f"/proc/{process.pid}/ns/net")
    try:
        eventually(lambda: link.stat().st_ino == wanted, "it is inside")
        yield process
    finally:
        process.kill()
        process.wait()


def on_lo(name: str) -> list[str]:
    """The addresses on `lo` in a namespace, but for the two that everybody has."""
    command = ["ip", "-n", name, "-json", "address", "show", "lo"]
    shown = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    found = [each["local"] for each in shown[0]["addr_info"]]
    return [address for address in found if address not in ("127.0.0.1", "::1")]
