"""For tests of a real server behind `v6fwd forward` in a lab: server, folder and clients."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import ForwardProcess
from tests.support.servers import DIALLED, Server
from v6fwd.demo.lab import CLIENT_V4, CLIENT_V6, CONTAINER_V4, Lab

PORT = 8080
"""Where v6fwd listens on the host."""

CLIENTS = pytest.mark.parametrize("client", [CLIENT_V6, CLIENT_V4], ids=["ipv6", "ipv4"])


@dataclass
class Stage:
    """What a test of this ring has."""

    lab: Lab
    folder: Path
    forward: ForwardProcess

    def relay_to(self, server: Server, *options: str, prefix: tuple[str, ...] = ()) -> None:
        """Start the server in the container and `v6fwd forward` in front of it."""
        server.start(self.lab)
        target = f"{CONTAINER_V4}:{server.port}"
        self.start_forward(f"[::]:{PORT}", target, *options, prefix=prefix)

    def start_forward(self, *words: str, prefix: tuple[str, ...] = ()) -> None:
        """Start `v6fwd forward WORDS` on the host, behind `prefix`."""
        self.forward.start(*words, prefix=self.lab.command("host", *prefix))

    def curl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run curl on the client."""
        return self.lab.run("client", *curl(*words))

    def exchange(self, host: str, data: bytes) -> bytes:
        """Send bytes from the client through v6fwd; gives all that came back."""
        words = client_script("send_stdin", host, str(PORT))
        exchanged: Any = self.lab.run("client", *words, input=data, text=False)
        assert exchanged.returncode == 0, exchanged.stderr
        return bytes(exchanged.stdout)

    def drop(self, host: str, rule: str) -> None:
        """Drop the packets arriving on a host that `rule` of nftables picks, and count them."""
        rules = f"""
            add table inet fault
            add chain inet fault input {{ type filter hook input priority 0; }}
            add rule inet fault input iifname != lo {rule} counter drop
        """
        self.lab.run(host, "nft", "-f", "-", input=rules).check_returncode()

    def dropped(self, host: str) -> int:
        """How many packets `drop` has dropped on a host."""
        table = self.lab.run(host, "nft", "list", "table", "inet", "fault").stdout
        return int(table.partition("packets ")[2].split()[0])

    def sockets(self, host: str, state: str, port: str) -> list[list[str]]:
        """The words of each line that ss(8) prints for connections between a host and `:PORT`."""
        words = ("-Htn", "state", state, f"( sport = {port} or dport = {port} )")
        listed = self.lab.run(host, "ss", *words)
        listed.check_returncode()
        return [line.split() for line in listed.stdout.splitlines()]


def curl(*words: str) -> list[str]:
    """The command for a quiet curl that gives up some time."""
    return ["curl", "--silent", "--show-error", "--max-time", "90", *words]


def asking(server: Server, url_host: str) -> list[str]:
    """The client's command that asks a server."""
    words = server.questions(url_host)
    return client_script(server.client, *words) if server.client else curl(*words)


def asking_often(server: Server, url_host: str, times: int) -> list[str]:
    """The same, that many times in turn, over a connection each."""
    words = server.questions(url_host)
    if server.client:
        host, port, _, *steps = words
        return client_script(server.client, host, port, str(times), *steps)
    url = next(word for word in words if "://" in word)
    return curl(*words, *[url] * (times - 1))


def url_host(client: str, port: int = PORT) -> str:
    """What a URL has between its slashes to reach the host from that address of the client."""
    host = DIALLED[client]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def client_script(name: str, *words: str) -> list[str]:
    """The command for one of the programs in clients/."""
    return [sys.executable, str(Path(__file__).with_name("clients") / f"{name}.py"), *words]
