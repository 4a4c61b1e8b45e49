"""For tests with real DNS servers that read PROXY v2 over UDP, in a lab."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tests.support.process import eventually
from v6fwd.demo.lab import BRIDGE_V4, CLIENT_V4, CLIENT_V6, Lab

NAME = "www.example.org"
ADDRESS = "192.0.2.77"
"""What every server here answers for NAME."""


DNS_LINES: dict[str, tuple[str, ...]] = {
    "unbound": ("proxy-protocol-port: 53",),
    "knotd": ("proxy-allowlist: [172.17.42.1]",),
    "pdns_recursor": ("proxy-protocol-from=172.17.42.1",),
    "pdns_server": ("proxy-protocol-from=172.17.42.1",),
    "dnsdist": ('setProxyProtocolACL({"172.17.42.1/32"})',),
    "kresd": ("net.proxy_allowed({'172.17.42.1'})",),
}
"""What makes each server read the PROXY header: docs/servers.md tells people the same lines."""


class DnsServer(ABC):
    """A name server on port 53 of the container; `lines` are what makes it learn the client."""

    program: ClassVar[str]

    def __init__(self, folder: Path, lines: Mapping[str, tuple[str, ...]] = DNS_LINES) -> None:
        self.folder = folder
        self.lines = lines.get(self.program, ())
        self.pid = 0
        """Its process, once it has started."""

    @property
    def log(self) -> str:
        """All that it has said."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    @abstractmethod
    def config(self) -> str:
        """The text of its configuration."""

    @abstractmethod
    def command(self, config: Path) -> list[str]:
        """The command that runs it in the foreground."""

    def start(self, lab: Lab) -> None:
        """Run it until the lab ends; returns when it listens."""
        config = self.folder / f"{self.program}.conf"
        config.write_text(self.config())
        with (self.folder / "output.log").open("wb") as output:
            process = lab.start(
                "container",
                *self.command(config),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        eventually(
            lambda: process.poll() is not None or _is_bound(lab, 53), f"{self.program} listens"
        )
        assert process.poll() is None, (self.folder / "output.log").read_text()
        self.pid = process.pid  # `ip netns exec` has become the server


def _is_bound(lab: Lab, port: int) -> bool:
    return bool(lab.run("container", "ss", "-Hlun", f"sport = :{port}").stdout)


class Unbound(DnsServer):
    """unbound: every query needs the header; its log and its access list see the client.

    The list must let in the sender of the header as well (1.17.1), and refuses everybody else.
    """

    program = "unbound"

    def config(self) -> str:
        """See DnsServer."""
        switch = "\n    ".join(self.lines)
        return f"""
server:
    username: ""
    chroot: ""
    pidfile: ""
    directory: "{self.folder}"
    use-syslog: no
    logfile: "{self.folder}/query.log"
    log-queries: yes
    interface: 0.0.0.0@53
    {switch}
    access-control: {BRIDGE_V4} allow
    access-control: {CLIENT_V6} allow
    access-control: {CLIENT_V4} allow
    local-zone: "example.org." static
    local-data: "{NAME}. A {ADDRESS}"
remote-control:
    control-enable: no
"""

    def command(self, config: Path) -> list[str]:
        """See DnsServer."""
        return [self.program, "-d", "-c", str(config)]


class Knot(DnsServer):
    """Knot DNS: its module whoami answers with the address of whoever asks."""

    program = "knotd"

    def config(self) -> str:
        """See DnsServer."""
        (self.folder / "example.org.zone").write_text(
            "$ORIGIN example.org.\n@ 60 SOA ns a 1 3600 600 86400 60\n@ NS ns\n"
            f"ns A 192.0.2.1\nwww A {ADDRESS}\n"
        )
        (self.folder / "whoami.zone").write_text(
            "$ORIGIN whoami.\n@ 60 SOA ns.example.org. a 1 3600 600 86400 60\n"
            "@ NS ns.example.org.\n"
        )
        switch = "\n    ".join(self.lines)
        return f"""
server:
    listen: 0.0.0.0@53
    rundir: {self.folder}
    udp-workers: 1
    {switch}
database:
    storage: {self.folder}
zone:
  - domain: example.org
    file: {self.folder}/example.org.zone
  - domain: whoami
    file: {self.folder}/whoami.zone
    module: mod-whoami
"""

    def command(self, config: Path) -> list[str]:
        """See DnsServer."""
        return [self.program, "-c", str(config)]
