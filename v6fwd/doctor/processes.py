"""Processes as /proc shows them: whose a socket is, and who dockerd is."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from v6fwd.docker.shim.published import command_line, shares_network
from v6fwd.doctor.facts import Process

_RANK = ("v6fwd", "docker-proxy", "hold", "dockerd")
"""Where several processes have a socket, the first of these is told of."""
_FIELDS = re.compile(r"^(Uid|CapEff):\s+(\w+)", re.MULTILINE)


def read_process(pid: int, proc: Path) -> Process | None:
    """A process; None where it is gone."""
    try:
        comm = (proc / str(pid) / "comm").read_text().strip()
        status = dict(_FIELDS.findall((proc / str(pid) / "status").read_text()))
        stat = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None
    words = tuple(command_line(pid, proc))
    return Process(
        pid,
        "v6fwd" if _is_ours(words) else comm,
        int(status.get("Uid", 0)),
        _booted(proc) + int(stat[19]) / os.sysconf("SC_CLK_TCK"),
        int(status.get("CapEff", "0"), 16),
        words,
    )


def named(name: str, proc: Path) -> list[Process]:
    """The processes of that name whose network is ours, or cannot be told."""
    return [
        process
        for pid in _pids(proc)
        if _comm(pid, proc) == name and shares_network(pid, proc)
        if (process := read_process(pid, proc)) is not None
    ]


def owners(inodes: Collection[int], proc: Path) -> dict[int, Process]:
    """Whose these sockets are, as far as we may look into processes' descriptors."""
    found: dict[int, list[Process]] = {}
    for pid in _pids(proc):
        held = _sockets(pid, proc) & set(inodes)
        process = read_process(pid, proc) if held else None
        if process is not None:
            for inode in held:
                found.setdefault(inode, []).append(process)
    return {inode: min(some, key=_rank) for inode, some in found.items()}


def _rank(process: Process) -> tuple[int, int]:
    places = [at for at, name in enumerate(_RANK) if process.name.startswith(name)]
    return (places[0] if places else len(_RANK)), process.pid


def _sockets(pid: int, proc: Path) -> set[int]:
    found = set()
    with contextlib.suppress(OSError), os.scandir(proc / str(pid) / "fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError, ValueError):
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    found.add(int(target[8:-1]))
    return found


def _is_ours(words: tuple[str, ...]) -> bool:
    names = [os.path.basename(word) for word in words[:2]]
    return "v6fwd" in names or words[1:3] == ("-m", "v6fwd")


def _booted(proc: Path) -> float:
    with contextlib.suppress(OSError, ValueError):
        for line in (proc / "stat").read_text().splitlines():
            if line.startswith("btime "):
                return float(line.split()[1])
    return 0.0


def _comm(pid: int, proc: Path) -> str:
    try:
        return (proc / str(pid) / "comm").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _pids(proc: Path) -> Iterator[int]:
    with contextlib.suppress(OSError):
        yield from (int(name) for name in os.listdir(proc) if name.isdecimal())
