"""The shims that dockerd has started: processes whose descriptors the daemon takes.

A pidfd names one process for good (pidfd_open(2), pidfd_getfd(2)), so a process id that is used
again is never touched; /proc tells whether the process is a shim, and one of this daemon's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from v6fwd.docker.shim.flags import ProxyFlags, parse_flags
from v6fwd.docker.shim.published import shim_flags
from v6fwd.model import InputError
from v6fwd.netns.owners import PROC, command_line

STATUS_FD = 3
REST_FD = 5
"""A shim that waits for this daemon has the FIFO `rest` of its folder open here."""
PIDFD_GETFD = 438
"""Its number in asm-generic/unistd.h: Python has no function for it before 3.15."""
PIDFD_SEND_SIGNAL = 424
"""Likewise: Python's function takes no siginfo."""
SI_QUEUE = -1
"""The code of a signal with a value, which a process may send (asm-generic/siginfo.h)."""
TAKEN, LET_GO = signal.SIGUSR1, signal.SIGUSR2
"""What a shim is told: its port is served; the daemon holds nothing of it any more."""

_libc = ctypes.CDLL(None, use_errno=True)


class NoShimError(Exception):
    """A process that is not, or is no longer, a shim that waits for this daemon."""


class Shim:
    """A living shim: what dockerd wants of it, and ways to tell it something."""

    def __init__(self, pid: int, flags: ProxyFlags, pidfd: int, rest: os.stat_result) -> None:
        self.pid = pid
        self.flags = flags
        self.started = _start_time_or_0(pid)
        """In clock ticks since boot; 0: it has ended."""
        self._pidfd = pidfd
        self._rest = rest

    @classmethod
    def find(cls, pid: int, rest: os.stat_result, started: int | None = None) -> Shim:
        """Return the shim with this process id that waits at the FIFO `rest`. Raises NoShimError.

        `started`: its `start_time`; a process that began at another time is another one.
        """
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            raise NoShimError(f"process {pid} has ended") from None
        try:
            return cls(pid, _flags(pid, rest, started), pidfd, rest)
        except BaseException:
            os.close(pidfd)
            raise

    def take(self, fd: int) -> int:
        """Return a copy of its descriptor. Raises OSError."""
        return _syscall(PIDFD_GETFD, self._pidfd, fd, 0)

    def answer(self, listener: socket.socket | None = None) -> None:
        """Tell dockerd that the port is open, and the shim that it is served. Raises OSError,
        and NoShimError for a shim that has given the daemon up.

        `listener`: a socket that the shim copies to its descriptor 4; it stays open here. A second
        answer does no harm: nobody reads any more, or the descriptor is /dev/null.
        """
        status = self.take(STATUS_FD)
        try:
            self.tell(TAKEN, listener)
            # A shim that gives the daemon up closes its REST_FD, then looks for this signal again.
            if not _waits_at(self.pid, self._rest):
                self.tell(LET_GO)
                raise NoShimError(f"process {self.pid} is in standalone mode")
            with contextlib.suppress(BrokenPipeError):
                os.write(status, b"0\n")
        finally:
            os.close(status)

    def tell(self, number: signal.Signals, listener: socket.socket | None = None) -> None:
        """Send a signal, if it lives; the relay that it may have become ignores both.

        `listener`: its descriptor is the signal's value.
        """
        with contextlib.suppress(OSError):
            if listener is None:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                self._queue(number, listener.fileno())

    def _queue(self, number: signal.Signals, value: int) -> None:
        """sigqueue(3), through the pidfd."""
        who = (os.getpid(), os.getuid())
        info = struct.pack("4i2i2i96x", number, 0, SI_QUEUE, 0, *who, value, 0)
        _syscall(PIDFD_SEND_SIGNAL, self._pidfd, number, info, 0)

    def watch(self, ended: Callable[[], None]) -> None:
        """Call `ended` when it has ended."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._pidfd, ended)

    def has_ended(self) -> bool:
        """Return whether it has ended."""
        poll = select.poll()  # select(2) takes no descriptor beyond 1023
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Stop watching it."""
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)


def shims_of(rest: os.stat_result) -> Iterator[int]:
    """Yield the process ids of all that wait at the FIFO `rest`, in ascending order."""
    for name in sorted(filter(str.isdecimal, os.listdir(PROC)), key=int):
        if _waits_at(int(name), rest):
            yield int(name)


def start_time(pid: int) -> int:
    """Return when a process began, in clock ticks since boot (proc(5), stat, field 22).

    Raises NoShimError.
    """
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()  # a process's name may be any bytes
    except OSError:
        raise NoShimError(f"process {pid} has ended") from None
    return int(stat.rpartition(b")")[2].split()[19])


def _start_time_or_0(pid: int) -> int:
    try:
        return start_time(pid)
    except NoShimError:
        return 0


def _flags(pid: int, rest: os.stat_result, started: int | None) -> ProxyFlags:
    if started not in (None, start_time(pid)):
        raise NoShimError(f"process {pid} is another one by now")
    words = shim_flags(command_line(pid))
    if words is None or not _waits_at(pid, rest) or not _is_armed(pid):
        raise NoShimError(f"process {pid} is no shim that waits for this daemon")
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


def _is_armed(pid: int) -> bool:
    """Return whether it handles the signals, which would end it otherwise.

    A holder does before it announces itself, and ignores both when it gives the daemon up.
    """
    try:
        lines = (PROC / str(pid) / "status").read_bytes().splitlines()
    except OSError:
        return False
    caught = next((line for line in lines if line.startswith(b"SigCgt:")), b"SigCgt: 0")
    return all(int(caught.split()[1], 16) >> (number - 1) & 1 for number in (TAKEN, LET_GO))


def _syscall(*words: int | bytes) -> int:
    """syscall(2). Raises OSError."""
    result = int(_libc.syscall(*words))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
