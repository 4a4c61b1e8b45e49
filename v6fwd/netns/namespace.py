"""Network namespaces: naming one, entering it for a moment, noticing that it has gone.

A socket made inside stays inside, so entering is all that a flow needs. Measured here, us a
socket: 8.6 in our own namespace, 12.7 with setns(2) there and back, 31 from a helper process
that makes sockets and passes them (131 with four more threads in this one); sockets made ahead
in batches save 4, and would keep a dead container's namespace alive. So: setns. It moves the
calling thread alone (setns(2)): resolver threads stay where they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
from collections.abc import Iterator

from v6fwd.errors import NotPermittedError, RelayError, reason
from v6fwd.model import is_ip
from v6fwd.netns.search import NAMED, identity, leads_to, search

_CLONE_NEWNET = 0x40000000
_libc = ctypes.PyDLL(None, use_errno=True)  # keeps the GIL: the call takes a microsecond
_setns = _libc.setns
_setns.argtypes = (ctypes.c_int, ctypes.c_int)


class Namespace:
    """A network namespace that is open, and the name by which it was found."""

    def __init__(self, name: str) -> None:
        """Open PATH, PID, the NAME of ip-netns(8), or whose ADDRESS it is.

        Raises RelayError, naming what is missing.
        """
        self.name = name
        self._path = path_of(name)
        self._pidfd = -1
        self._fd = self._own = -1
        try:
            if name.isdecimal():
                # Taken first: if the process is alive afterwards, it was all the time.
                self._pidfd = os.pidfd_open(int(name))
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self._own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self.identity = identity(os.fstat(self._fd))
            if self._pidfd >= 0 and self.is_gone():
                raise ProcessLookupError(errno.ESRCH, "")
        except (OSError, OverflowError) as error:
            self.close()
            raise _open_failed(name, self._path, error) from None
        if self.identity == own_identity():
            self.close()
            raise RelayError(f"network namespace {name} is v6fwd's own, not a container's")

    def close(self) -> None:
        """Let go of it."""
        for fd in (self._fd, self._own, self._pidfd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._own = self._pidfd = -1

    def is_gone(self) -> bool:
        """Whether its name leads elsewhere now, or nowhere."""
        if self._pidfd >= 0:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)  # pidfd_open(2): readable at its end
            return bool(poll.poll(0))
        try:
            if is_ip(self.name) and not leads_to(self._path, self.name):
                self._path = search(self.name)  # the process by which it was found may have ended
            return identity(os.stat(self._path)) != self.identity
        except (OSError, RelayError):
            return True

    def fileno(self) -> int:
        """Its descriptor."""
        return self._fd

    @property
    def process(self) -> int:
        """The descriptor of the process that names it, readable when that has ended; -1: none."""
        return self._pidfd

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be in it; nothing may be awaited. Raises OSError, EPERM without CAP_SYS_ADMIN."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        """See `entered`, for those in a hurry: `leave` must follow whatever happens."""
        if _setns(self._fd, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def leave(self) -> None:
        """Back to our own namespace."""
        for _ in range(100):  # ENOMEM is all that can be wrong on the way back
            if not _setns(self._own, _CLONE_NEWNET):
                return
        os.abort()  # everything from here on would happen in the wrong place


def path_of(name: str) -> str:
    """Where the namespace called NAME, PID, ADDRESS or PATH is in the file system. Raises
    RelayError for an address that is in none."""
    if name.isdecimal():
        return f"/proc/{name}/ns/net"
    if is_ip(name):
        return search(name)
    return name if "/" in name else str(NAMED / name)


def own_identity() -> str:
    """The identity of the namespace that this thread is in."""
    return identity(os.stat("/proc/thread-self/ns/net"))


def identity_of(name: str) -> str | None:
    """The identity of the namespace that a name leads to now; None for none."""
    try:
        return identity(os.stat(path_of(name)))
    except (OSError, RelayError):
        return None


def _open_failed(name: str, path: str, error: Exception) -> RelayError:
    if not isinstance(error, OSError) or error.errno == errno.ESRCH:
        return RelayError(f"there is no process {name}, whose network namespace was asked for")
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotPermittedError(f"cannot open {path}: needs CAP_SYS_PTRACE")
    return RelayError(f"cannot open network namespace {path}: {reason(error)}")
