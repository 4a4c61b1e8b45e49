"""Processes as /proc shows them: whose a listening socket is, and who dockerd is."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from v6fwd.errors import AddressInUseError, RelayError
from v6fwd.model import Endpoint, parse_listen
from v6fwd.netns.view import Listening, ListeningSockets

PROC = Path("/proc")
_RANK = ("v6fwd", "docker-proxy", "hold", "dockerd")
"""Where several processes have a socket, the first of these is told of."""
_FIELDS = re.compile(r"^(Uid|CapEff):\s+(\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Process:
    """A process. `started`: seconds since the epoch; `capabilities`: the effective ones."""

    pid: int
    name: str
    uid: int = 0
    started: float = 0.0
    capabilities: int = 0
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}, pid {self.pid}"


def command_line(pid: int, proc: Path = PROC) -> list[str]:
    """Return a process's words; none if there is no such process."""
    try:
        data = (proc / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return data.decode("utf-8", "replace").removesuffix("\0").split("\0")


def holder_of(listen: Endpoint, proc: Path = PROC) -> Process | None:
    """Who listens where `listen` would; None where nobody does, or we may not look at him."""
    try:
        with contextlib.closing(ListeningSockets()) as sockets:
            held = [each for each in sockets.all() if _is_in_the_way(each, listen)]
    except OSError:
        return None
    found = owners({each.inode for each in held}, proc)
    return min(found.values(), key=_rank, default=None)


def told(error: RelayError, container_of: Callable[[Process], str] = lambda _: "") -> str:
    """The error's text, and behind it who listens there already, where that can be seen.

    `container_of` gives the container that a process serves, "" for none. Reads all of /proc: it
    is for errors that end a command, not for what clients can cause.
    """
    if not isinstance(error, AddressInUseError):
        return str(error)
    holder = holder_of(parse_listen(error.listen)[0])
    if holder is None:
        return str(error)
    container = container_of(holder)
    return f"{error} ({holder}{f', container {container}' if container else ''})"


def _is_in_the_way(held: Listening, listen: Endpoint) -> bool:
    """Whether bind(2) of `listen` fails because of a socket, as far as addresses tell."""
    host = listen.host.partition("%")[0]
    if (held.protocol, held.port) != (listen.protocol, listen.port):
        return False
    wanted = frozenset((4, 6)) if host == "::" else frozenset((6 if ":" in host else 4,))
    is_any = held.is_any or host in ("::", "0.0.0.0")
    return bool(held.families & wanted) and (is_any or held.host == host)


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


def shares_network(pid: int, proc: Path = PROC) -> bool:
    """Whether a process is in our network namespace; true where that is not shown to us."""
    try:
        return os.stat(proc / str(pid) / "ns/net").st_ino == os.stat(proc / "self/ns/net").st_ino
    except PermissionError:
        return True
    except OSError:  # it has ended
        return False


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
    is_alone = words[1:3] == ("-I", "-c") and "from v6fwd.docker" in "".join(words[3:4])
    return "v6fwd" in names or words[1:3] == ("-m", "v6fwd") or is_alone


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
