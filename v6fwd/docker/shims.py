"""The shims that dockerd has started, seen from the daemon: processes whose descriptors we take.

pidfd_open(2) and pidfd_getfd(2) name a process for good, so that a process id that was used again
is never touched; /proc tells whether it is a shim, and ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from v6fwd.docker.flags import ProxyFlags, parse_flags
from v6fwd.docker.ports import PROC, command_line, shim_flags
from v6fwd.model import InputError

STATUS_FD = 3
REST_FD = 5
"""What a shim that waits for us blocks on: the FIFO `rest` of our folder, and of no other."""
PIDFD_GETFD = 438
"""Its number in asm-generic/unistd.h; Python has no function for it before 3.15."""
TAKEN, LET_GO = signal.SIGUSR1, signal.SIGUSR2
"""What we tell a shim: that we serve its port; that we hold nothing of it any more."""

_libc = ctypes.CDLL(None, use_errno=True)


class NoShimError(Exception):
    """A process that is not, or is no longer, a shim that waits for us."""


class Shim:
    """A living shim: what dockerd wants of it, and how to speak to it."""

    def __init__(self, pid: int, flags: ProxyFlags, pidfd: int) -> None:
        self.pid = pid
        self.flags = flags
        self._pidfd = pidfd

    @classmethod
    def find(cls, pid: int, rest: os.stat_result, started: int | None = None) -> Shim:
        """The shim with this process id that waits at our FIFO `rest`. Raises NoShimError.

        `started`: see start_time; a process that began at another time is somebody else.
        """
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            raise NoShimError(f"process {pid} has ended") from None
        try:
            return cls(pid, _flags(pid, rest, started), pidfd)
        except BaseException:
            os.close(pidfd)
            raise

    def take(self, fd: int) -> int:
        """A copy of its descriptor. Raises OSError."""
        taken = int(_libc.syscall(PIDFD_GETFD, self._pidfd, fd, 0))
        if taken < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return taken

    def answer(self) -> None:
        """Tell dockerd that the port is open, and the shim that it is served. Raises OSError,
        and NoShimError for one that has given us up.

        A second answer does no harm: nobody reads any more, or the descriptor is /dev/null.
        """
        if not self.listens_to_us():
            raise NoShimError(f"process {self.pid} stands alone")
        status = self.take(STATUS_FD)
        try:
            with contextlib.suppress(BrokenPipeError):
                os.write(status, b"0\n")
        finally:
            os.close(status)
        self.tell(TAKEN)

    def tell(self, number: signal.Signals) -> None:
        """Send a signal, if it lives and does not die of it: what it has become may."""
        with contextlib.suppress(OSError):
            if _catches(self.pid, number):
                signal.pidfd_send_signal(self._pidfd, number)

    def watch(self, ended: Callable[[], None]) -> None:
        """Call `ended` once, when it has ended."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._pidfd, ended)

    def has_ended(self) -> bool:
        """Whether it is over."""
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def listens_to_us(self) -> bool:
        """Whether it has set its traps, and not become a relay that stands alone."""
        return _catches(self.pid, TAKEN)

    def close(self) -> None:
        """Forget it."""
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)


def shims_of(rest: os.stat_result) -> Iterator[int]:
    """The process ids of all that wait at the FIFO `rest`, in the order of their numbers."""
    for name in sorted(filter(str.isdecimal, os.listdir(PROC)), key=int):
        if _waits_at(int(name), rest):
            yield int(name)


def age(pid: int) -> float:
    """Seconds since a process began. Raises NoShimError."""
    uptime = float((PROC / "uptime").read_text().split()[0])
    return uptime - start_time(pid) / os.sysconf("SC_CLK_TCK")


def start_time(pid: int) -> int:
    """When a process began, in clock ticks since boot (proc(5), stat, field 22). NoShimError."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        raise NoShimError(f"process {pid} has ended") from None
    return int(stat.rpartition(")")[2].split()[19])


def _flags(pid: int, rest: os.stat_result, started: int | None) -> ProxyFlags:
    if started not in (None, start_time(pid)):
        raise NoShimError(f"process {pid} is not the one that it was")
    words = shim_flags(command_line(pid))
    if words is None or not _waits_at(pid, rest):
        raise NoShimError(f"process {pid} is no shim that waits for us")
    try:
        return parse_flags(words)
    except InputError as error:
        raise NoShimError(f"process {pid}: {error}") from None


def _waits_at(pid: int, rest: os.stat_result) -> bool:
    folder: Path = PROC / str(pid)
    try:
        found = os.stat(folder / "fd" / str(REST_FD))
        return os.path.samestat(found, rest) and folder.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _catches(pid: int, number: signal.Signals) -> bool:
    """Whether it has a trap: without one, the signal would end it."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return False
    caught = next((line for line in lines if line.startswith("SigCgt:")), "SigCgt: 0")
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
