"""What a peer is: something that takes connections or datagrams on one port and passes them on."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from bench.processes import TCP
from bench.trial import Trial

HEADER_OFF, HEADER_ON, HEADER_HTTP = "", "proxy", "http"
"""What a target gets of a peer: the bare bytes, a PROXY header, a field in each HTTP request."""
TRANSPARENT = "transparent"
"""The bare bytes, from the client's own address."""

MANY_AT_ONCE = ("connections-20", "connections-200", "requests-50")
"""The scenarios that have work for a second thread or worker: peers with exactly two take part."""


@dataclass(frozen=True, slots=True)
class Route:
    """A port to listen on, and the target's port behind it."""

    listen: int
    target: int
    protocol: str = TCP


@dataclass(frozen=True, slots=True)
class Relay:
    """A peer that runs: where the client dials, and the roots of its process tree."""

    dials: Sequence[tuple[str, int]]
    roots: Collection[int]

    @property
    def host(self) -> str:
        """The address that the client dials."""
        return self.dials[0][0]

    @property
    def port(self) -> int:
        """The first port that the client dials."""
        return self.dials[0][1]

    @property
    def url(self) -> str:
        """The URL of a web server behind the first port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"


class Peer(ABC):
    """One way from an IPv6 client to an IPv4 target."""

    name: str
    product: ClassVar[str]
    """What its version is the version of; "" for none."""
    programs: ClassVar[tuple[str, ...]] = ()
    header: str = HEADER_OFF
    """How it names the client to its target."""
    max_flows: ClassVar[int] = 1_000_000
    """Flows at once that it makes sense with."""
    max_ports: ClassVar[int] = 1_000_000
    """Ports that it makes sense with; 0 for a peer that has no process."""
    only: Collection[str] = ()
    """Names of the scenarios that it is for; empty: those that its header fits."""
    no_udp: ClassVar[str] = ""
    """Why it relays no UDP, in a few words; "" where it does."""

    def obstacle(self) -> str | None:
        """Why it cannot run on this machine, in a few words, or None."""
        missing = [program for program in self.programs if shutil.which(program) is None]
        return f"no {', '.join(missing)}" if missing else None

    @abstractmethod
    def version(self) -> str:
        """Its version, as it says itself."""

    @abstractmethod
    def start(self, trial: Trial, routes: Sequence[Route]) -> Relay:
        """Start it on the host, and wait until it accepts. Raises TrialError."""

    def _relay(self, trial: Trial, routes: Sequence[Route], roots: Collection[int]) -> Relay:
        return Relay([(trial.ground.dial_host, route.listen) for route in routes], roots)


def said(*command: str, pattern: str = r"(\d+(?:\.\d+)+[^\s,]*)") -> str:
    """The first match of `pattern` in what a command says, or "unknown"."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "unknown"


def descriptor_limit() -> int:
    """How many descriptors a process may have; raises the soft limit to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
