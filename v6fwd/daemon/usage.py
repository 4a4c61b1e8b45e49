"""What the processes of the daemon take: CPU time, memory, descriptors. From /proc/PID.

A worker hides from /proc (PR_SET_DUMPABLE), and under a user of its own the supervisor may not look
there. So a child opens its own files before that and passes them: the kernel checks at open(2)
only, and a file of /proc/PID never tells of a later process with that number.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGESIZE")
_NAMES = ("stat", "limits", "fd")
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
_ENOUGH = 4096
"""Bytes of `stat` and of `limits`, which have below 1,500."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process takes."""

    cpu: float
    """Seconds of processor time, user and system."""
    resident: int
    """Bytes in memory, those shared with other processes included."""
    open_fds: int
    max_fds: float
    """The soft limit of descriptors."""


class UsageFiles:
    """The open files of a process in /proc."""

    def __init__(self, fds: list[int]) -> None:
        self._fds = fds

    @classmethod
    def own(cls) -> UsageFiles:
        """Open those of this process. Raises OSError."""
        files = cls([])
        try:
            for name in _NAMES:
                files._fds.append(os.open(f"/proc/self/{name}", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            files.close()
            raise
        return files

    def read(self) -> Usage | None:
        """Return what the process takes now, None if it is gone."""
        try:
            stat, limits, folder = self._fds
            fields = os.pread(stat, _ENOUGH, 0).rpartition(b")")[2].split()  # proc(5), from the 3rd
            return Usage(
                cpu=(int(fields[11]) + int(fields[12])) / _TICKS,
                resident=int(fields[21]) * _PAGE,
                open_fds=os.fstat(folder).st_size or len(os.listdir(folder)),  # size: Linux 6.2
                max_fds=_open_files(os.pread(limits, _ENOUGH, 0)),
            )
        except (OSError, ValueError):  # ESRCH; or no files
            return None

    def send(self, sock: socket.socket) -> None:
        """Pass copies of them. Raises OSError."""
        socket.send_fds(sock, [b"\0"], self._fds)

    def close(self) -> None:
        """Close them."""
        while self._fds:
            os.close(self._fds.pop())


class ChildUsage:
    """What a child takes. Made before the fork; each side calls its own methods."""

    def __init__(self) -> None:
        self._ours, self._childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._files = UsageFiles([])

    def pass_own(self) -> None:
        """In the child: pass the files, if they can be opened. It may hide afterwards."""
        with contextlib.suppress(OSError):
            files = UsageFiles.own()
            files.send(self._childs)
            files.close()

    def forked(self) -> None:
        """In the parent, after fork(2)."""
        self._childs.close()

    def read(self) -> Usage | None:
        """In the parent: what the child takes now, None if it is gone or has not begun."""
        self._take()
        return self._files.read()

    def _take(self) -> None:
        """Receive the files when they are first needed. Never blocks."""
        with contextlib.suppress(OSError):  # not there yet; or closed, as there is nothing more
            _, fds, _, _ = socket.recv_fds(self._ours, 1, len(_NAMES), _FLAGS)
            self._files = UsageFiles(fds)  # fewer if we have no descriptors left: read() says None
            self._ours.close()

    def close(self) -> None:
        """Let go of the child, or of the fork that failed."""
        self._ours.close()
        self._childs.close()
        self._files.close()


def _open_files(limits: bytes) -> float:
    """Return the soft limit of descriptors. Raises ValueError."""
    for line in limits.splitlines():
        if line.startswith(b"Max open files"):
            return float(line.split()[3].replace(b"unlimited", b"inf"))
    raise ValueError("no limit of open files")


def measured(children: Mapping[str, ChildUsage]) -> dict[str, Usage]:
    """Return what the supervisor and its children take, by name; who is gone is left out."""
    found = {name: child.read() for name, child in children.items()}
    with contextlib.suppress(OSError):
        own = UsageFiles.own()
        found["supervisor"] = own.read()
        own.close()
    return {name: usage for name, usage in sorted(found.items()) if usage is not None}
