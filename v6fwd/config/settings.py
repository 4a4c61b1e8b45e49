"""What `serve` knows when all files are read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from v6fwd.config.rules import Rule
from v6fwd.log import LogFormat
from v6fwd.model import Endpoint, Forward, Limits, Transparent, TransparentFallback


class ConfigError(ValueError):
    """The configuration cannot be used. Its text has one line for every mistake."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


@dataclass(frozen=True, slots=True)
class Control:
    """The unix socket where `status`, `reload` and the next `serve` knock."""

    socket: str = "/run/v6fwd/control.sock"
    """Its path; "": there is none."""
    group: str = ""
    """Whose members may use it beside root; "": nobody else."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Where Prometheus finds its figures."""

    listen: Endpoint | None = None
    """A TCP endpoint; None: nowhere."""


_TRANSPARENT = Transparent(fallback=TransparentFallback.NONE)


def _docker_host() -> str:
    """As the docker command has it, where that is a unix socket."""
    host = os.environ.get("DOCKER_HOST", "")
    return host if host.startswith("unix:///") else "unix:///run/docker.sock"


@dataclass(frozen=True, slots=True)
class Docker:
    """Where the Engine is asked, and what the file says of its ports."""

    host: str = field(default_factory=_docker_host)
    """Its unix socket. Where the file says nothing, DOCKER_HOST may."""
    rules: tuple[Rule, ...] = ()
    """Modes of published ports; the first that fits goes, and before labels."""
    transparent: Transparent = _TRANSPARENT
    """How their mode `transparent` does it; its `netns` is each container's. Without a fallback
    this host's own programs, which come from 127.0.0.1 and ::1, would be refused."""
    transparent_address: bool = True
    """Whether containers in that mode get an IPv6 address on `lo` before they start."""


_LIMITS = Limits()


def _processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Config:
    """All that the files said; what they left out has its default."""

    forwards: tuple[Forward, ...] = ()
    workers: int = field(default_factory=_processors)
    """Processes that serve flows, 1 to 256."""
    user: str = ""
    """Whom to become once the sockets are open; "": stay who it is."""
    control: Control = Control()
    metrics: Metrics = Metrics()
    docker: Docker = Docker()
    limits: Limits = _LIMITS
    """What goes for the process: drain, interrupt, max_flows. The rest each forward has."""
    log_format: LogFormat = LogFormat.TEXT
    log_flows: bool = False
