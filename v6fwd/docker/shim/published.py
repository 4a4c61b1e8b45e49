"""Reads from /proc which program serves each published port of this host.

dockerd starts one process for every published port and family, with its flags in the command line.
The rest of the command line tells which program it is.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from v6fwd.docker.install import SHIM
from v6fwd.docker.shim.flags import parse_flags
from v6fwd.docker.shim.holder import HOLDER
from v6fwd.model import Forward, InputError
from v6fwd.netns.owners import PROC, command_line, shares_network

STANDALONE_MODULES = ("v6fwd.docker.shim.standalone", "v6fwd.docker.proxy")
"""What a shim in standalone mode has imported; the latter in release 0.1."""


class ServedBy(enum.StrEnum):
    """The programs."""

    DAEMON = "v6fwd serve"  # the shim is a holder, and the daemon has its sockets
    STANDALONE = "v6fwd, alone"  # the shim is in standalone mode
    DOCKER = "docker-proxy"


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """One process, and what dockerd wants it to forward."""

    forward: Forward
    served_by: ServedBy
    pid: int


def published_ports(proc: Path = PROC) -> list[PublishedPort]:
    """Return all of this host, by port; processes that end meanwhile are left out."""
    found = []
    for name in os.listdir(proc):
        if name.isdecimal():
            port = _port(int(name), command_line(int(name), proc))
            if port is not None:
                found.append(port)
    return sorted(found, key=_order)


def published_here() -> list[PublishedPort]:
    """Return those whose sockets may be in our way: in our network namespace, of our user.

    Any user, and any container, can give a process such a command line.
    """
    return [port for port in published_ports() if shares_network(port.pid) and _is_ours(port.pid)]


def _is_ours(pid: int) -> bool:
    try:
        return (PROC / str(pid)).stat().st_uid == os.geteuid()
    except OSError:  # it has ended
        return False


def split_command(words: Sequence[str]) -> tuple[ServedBy, Sequence[str]] | None:
    """Return which program a command line is, and its flags; None for all others.

    The holder is `.../hold-MACHINE FIFO PATIENCE .../v6fwd-docker-proxy FLAGS`; a shim in
    standalone mode is `python3 -I -c CODE DOCKER-PROXY FLAGS`.
    """
    name = os.path.basename(words[0]) if words else ""
    if len(words) > 4 and name.startswith(HOLDER) and os.path.basename(words[3]) == SHIM:
        return ServedBy.DAEMON, words[4:]
    if len(words) > 5 and words[1:3] == ["-I", "-c"] and _is_standalone(words[3]):
        return ServedBy.STANDALONE, words[5:]
    if name == "docker-proxy":
        return ServedBy.DOCKER, words[1:]
    return None


def _is_standalone(code: str) -> bool:
    return any(f"from {module} import main" in code for module in STANDALONE_MODULES)


def shim_flags(words: Sequence[str]) -> Sequence[str] | None:
    """Return the flags in the command line of a holder; None for all others."""
    split = split_command(words)
    return split[1] if split is not None and split[0] is ServedBy.DAEMON else None


def _port(pid: int, words: Sequence[str]) -> PublishedPort | None:
    split = split_command(words)
    if split is None:
        return None
    try:
        return PublishedPort(parse_flags(split[1]).forward, split[0], pid)
    except InputError:  # sctp, or a docker-proxy that somebody tries out
        return None


def _order(port: PublishedPort) -> tuple[int, str, str]:
    listen = port.forward.listen
    return listen.port, listen.protocol, listen.host
