"""The result of reading all files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address

from v6fwd.config.rules import Rule
from v6fwd.log import LogFormat
from v6fwd.model import (
    Balance,
    Endpoint,
    Forward,
    Guard,
    Limits,
    RelayEngine,
    Transparent,
    TransparentFallback,
    is_ip,
)
from v6fwd.model.loops import is_loopback


class ConfigError(ValueError):
    """The configuration is invalid. The text has one line for every mistake."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


@dataclass(frozen=True, slots=True)
class Control:
    """The unix socket for `status`, `flows`, `ban`, `reload`, `drain` and takeover."""

    socket: str = "/run/v6fwd/control.sock"
    """Its path; "": no control socket."""
    group: str = ""
    """Whose members may use it beside root; "": nobody else."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """The HTTP endpoint of /metrics and /healthz, and of the status page."""

    listen: Endpoint | None = None
    """A TCP endpoint or a unix socket; None: no metrics."""
    status_page: bool = False
    """Whether /status shows the page for people."""
    status_host: str = ""
    """A host name under which browsers may ask for it, beside localhost and addresses."""
    token_file: str = ""
    """A file with the password of the page; "": it has none."""
    admin: bool = False
    """Whether the page may ban, drain and reload."""

    @property
    def is_open(self) -> bool:
        """Whether whoever can connect to a TCP port may have the page."""
        return self.listen is not None and not self.listen.path and not self.token_file

    def mistake(self) -> tuple[str, str]:
        """The key that others forbid, and why; "" if there is none."""
        is_local = self.listen is None or self.listen.path or _is_loopback(self.listen.host)
        if self.admin and not self.status_page:
            return "admin", "needs status-page = true"
        if self.admin and self.is_open:
            return "admin", f"any user of this host can connect to {self.listen}; {_CLOSE}"
        if self.status_page and self.is_open and not is_local:
            return "status-page", f"whoever reaches {self.listen} could see all clients; {_CLOSE}"
        return "", ""


_CLOSE = 'set token-file, or listen = "unix:/run/v6fwd/status.sock"'


def _is_loopback(host: str) -> bool:
    host = host.partition("%")[0]
    return host == "localhost" or (is_ip(host) and is_loopback(ip_address(host).packed))


_GUARD = Guard()
_TRANSPARENT = Transparent(fallback=TransparentFallback.NONE)


def _docker_host() -> str:
    """DOCKER_HOST, if it names a unix socket."""
    host = os.environ.get("DOCKER_HOST", "")
    return host if host.startswith("unix:///") else "unix:///run/docker.sock"


@dataclass(frozen=True, slots=True)
class Docker:
    """The Engine's API socket, and the modes of published ports."""

    host: str = field(default_factory=_docker_host)
    """Its unix socket; DOCKER_HOST if the file does not set it."""
    rules: tuple[Rule, ...] = ()
    """Modes of published ports. The first match wins, and rules take precedence over labels."""
    transparent: Transparent = _TRANSPARENT
    """Options of their mode `transparent`; `netns` is each container's. Without a fallback, this
    host's own programs, which connect from 127.0.0.1 and ::1, would be refused."""
    guard: Guard = _GUARD
    """Who may use published ports, as [defaults] has it; rules and labels change it."""
    transparent_address: bool = True
    """Whether containers in that mode get an IPv6 address on `lo` before they start."""
    swarm: bool = False
    """Whether ports that Swarm publishes through its routing mesh are served, too."""
    swarm_balance: Balance = Balance.LOCAL
    """Which task a new flow tries first."""
    swarm_affinity: bool = False
    """Whether a client, or its /64, stays with one task as long as that is there."""


_LIMITS = Limits()


def _processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of all files, with defaults for what they leave out."""

    forwards: tuple[Forward, ...] = ()
    workers: int = field(default_factory=_processors)
    """Processes that serve flows, 1 to 256."""
    engine: RelayEngine = RelayEngine.AUTO
    """What moves the bytes of plain TCP flows."""
    user: str = ""
    """The user to switch to once the sockets are open; "": none."""
    control: Control = Control()
    metrics: Metrics = Metrics()
    docker: Docker = Docker()
    limits: Limits = _LIMITS
    """Limits of the process: drain, interrupt, max_flows. Each forward has the others."""
    log_format: LogFormat = LogFormat.TEXT
    log_flows: bool = False
