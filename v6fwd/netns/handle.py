"""An open network namespace: entering it for a moment, and telling it from others.

A socket made inside stays inside, so entering is all that a flow needs. Measured, us a socket:
8.6 in our own namespace, 12.7 with setns(2) there and back, 31 from a helper process that makes
sockets and passes them (131 with four more threads in this one); sockets made ahead in batches
save 4, and would keep a dead container's namespace alive. setns(2) moves the calling thread
alone: resolver threads stay where they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

OWN_PATH = Path("/proc/thread-self/ns/net")
"""The namespace that the calling thread is in."""

_CLONE_NEWNET = 0x40000000
_libc = ctypes.PyDLL(None, use_errno=True)  # keeps the GIL: the call takes a microsecond
_setns = _libc.setns
_setns.argtypes = (ctypes.c_int, ctypes.c_int)


class Handle:
    """Descriptors of a network namespace and of the one to come back to."""

    def __init__(self, path: str) -> None:
        """Open the namespace at `path`. Raises OSError."""
        self._own = -1
        self._can_return = False
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._own = os.open(OWN_PATH, os.O_RDONLY | os.O_CLOEXEC)
            self.identity = identity(os.fstat(self._fd))
        except BaseException:
            Handle.close(self)
            raise

    def close(self) -> None:
        """Close the descriptors. The kernel can remove the namespace then."""
        for fd in (self._fd, self._own):
            if fd >= 0:
                os.close(fd)
        self._fd = self._own = -1

    def fileno(self) -> int:
        """The namespace's descriptor."""
        return self._fd

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Enter the namespace for the length of a block, in which nothing may be awaited.

        Raises OSError, EPERM without CAP_SYS_ADMIN.
        """
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        """As `entered`, at less cost: `leave` must follow whatever happens. Raises OSError."""
        if not self._can_return:
            # With the capabilities of a user namespace that does not own our network we could go
            # there, and would be refused on the way back (setns(2)).
            _move_to(self._own)
            self._can_return = True
        _move_to(self._fd)

    def leave(self) -> None:
        """Return to our own namespace."""
        for _ in range(100):  # ENOMEM is all that can be wrong on the way back
            if not _setns(self._own, _CLONE_NEWNET):
                return
        os.abort()  # everything from here on would happen in the wrong namespace


def _move_to(fd: int) -> None:
    if _setns(fd, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def identity(status: os.stat_result) -> str:
    """What tells namespaces apart, from stat(2) of one of their files."""
    return f"{status.st_dev:x}-{status.st_ino}"


def own_identity() -> str:
    """The identity of the namespace that this thread is in. Raises OSError."""
    return identity(os.stat(OWN_PATH))
