"""Network namespaces by name: opening one, and noticing that its name leads elsewhere."""

from __future__ import annotations

import errno
import os
import select

from v6fwd.errors import NotPermittedError, RelayError, reason
from v6fwd.model import is_ip
from v6fwd.netns.handle import Handle, identity, own_identity
from v6fwd.netns.search import NAMED, leads_to, search


class Namespace(Handle):
    """An open network namespace, and the name by which it was found."""

    def __init__(self, name: str) -> None:
        """Open PATH, PID, the NAME of ip-netns(8), or the one that has ADDRESS.

        Raises RelayError, naming what is missing.
        """
        self.name = name
        self._path = path_of(name)
        self._pidfd = -1
        try:
            if name.isdecimal():
                # Taken first: if the process is alive afterwards, it was all the time.
                self._pidfd = os.pidfd_open(int(name))
            super().__init__(self._path)
        except (OSError, OverflowError) as error:
            self._close_pidfd()
            raise _open_failed(name, self._path, error) from None
        if self._pidfd >= 0 and self.is_gone():
            self.close()
            raise _no_process(name)
        if self.identity == own_identity():
            self.close()
            raise RelayError(f"network namespace {name} is v6fwd's own, not a container's")

    def close(self) -> None:
        super().close()
        self._close_pidfd()

    def _close_pidfd(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._pidfd = -1

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

    @property
    def process(self) -> int:
        """The pidfd of the process that names it, readable when that has ended; -1 for none."""
        return self._pidfd


def path_of(name: str) -> str:
    """The path of the namespace called NAME, PID, ADDRESS or PATH.

    Raises RelayError for an address that is in none.
    """
    if name.isdecimal():
        return f"/proc/{name}/ns/net"
    if is_ip(name):
        return search(name)
    return name if "/" in name else str(NAMED / name)


def identity_of(name: str) -> str | None:
    """The identity of the namespace that a name leads to now; None for none."""
    try:
        return identity(os.stat(path_of(name)))
    except (OSError, RelayError):
        return None


def _open_failed(name: str, path: str, error: Exception) -> RelayError:
    if not isinstance(error, OSError) or error.errno == errno.ESRCH:
        return _no_process(name)
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotPermittedError(f"cannot open {path}: needs CAP_SYS_PTRACE")
    return RelayError(f"cannot open network namespace {path}: {reason(error)}")


def _no_process(name: str) -> RelayError:
    return RelayError(f"there is no process {name}, whose network namespace was asked for")
