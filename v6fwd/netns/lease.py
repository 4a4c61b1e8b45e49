"""Counts the processes that use a network namespace, so that the last one undoes everything.

A lease is a file in LEASES, named after the namespace, on which each user holds a shared lock
(flock(2)). A process that can lock it exclusively is the last: it undoes everything and removes
the file. The kernel releases locks when a process dies, however it dies; so a lease without a
lock was left by a killed process, and the next process to take a lease undoes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from v6fwd.errors import RelayError, reason
from v6fwd.folder import TrustedFolder
from v6fwd.netns.handle import own_identity
from v6fwd.netns.namespace import identity_of

LEASES = Path("/run/v6fwd/netns")
"""The same for all processes: they must see each other's leases."""
LOCK = "lock"
"""The file in LEASES that is locked while leases are taken and released."""
OWN = ""
"""The name of the namespace that the process itself is in."""

Undo = Callable[[str, dict[str, str]], None]
"""Takes the name of a namespace and the sysctls to be put back, by path and value."""


class Lease:
    """This process's use of a namespace. Made under `leases_locked`."""

    def __init__(self, identity: str, name: str) -> None:
        """Take it. Raises OSError."""
        self._identity = identity
        with _folder() as folder:
            self._fd = _open(folder, identity, os.O_CREAT)
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        self.sysctls = _read(self._fd).get("sysctls", {})
        self._name = name
        self._write()

    def remember(self, sysctl: str, value: str) -> None:
        """Note that a sysctl was `value` before we changed it; the first value noted stays."""
        self.sysctls = _read(self._fd).get("sysctls", {})
        self.sysctls.setdefault(sysctl, value)
        self._write()

    def give_back(self, undo: Callable[[dict[str, str]], None]) -> None:
        """Release it; calls `undo` with the sysctls to be restored if no other process has one.

        Raises OSError, and what `undo` raises.
        """
        try:
            if _is_ours_alone(self._fd):
                undo(_read(self._fd).get("sysctls", {}))
                with _folder() as folder:
                    folder.unlink(self._identity)
        finally:
            os.close(self._fd)

    def _write(self) -> None:
        text = json.dumps({"name": self._name, "sysctls": self.sysctls})
        os.pwrite(self._fd, text.encode(), 0)
        os.ftruncate(self._fd, len(text.encode()))


@contextlib.contextmanager
def leases_locked() -> Iterator[None]:
    """Keep other processes from taking or releasing leases. Raises RelayError."""
    try:
        with _folder() as folder:
            fd = _open(folder, LOCK, os.O_CREAT)
    except OSError as error:
        raise RelayError(f"cannot write to {LEASES}: {reason(error)}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def undo_the_dead(undo: Undo) -> int:
    """Undo what killed processes left in namespaces that still exist; gives their number.

    Call it under `leases_locked`. Raises OSError.
    """
    count = 0
    with _folder() as folder:
        for identity in folder.names():
            if identity == LOCK:
                continue
            fd = _open(folder, identity)
            try:
                if _is_ours_alone(fd):
                    _undo_one(identity, _read(fd), undo)
                    folder.unlink(identity)
                    count += 1
            finally:
                os.close(fd)
    return count


def _undo_one(identity: str, left: dict[str, Any], undo: Undo) -> None:
    name = left.get("name", OWN)
    if (identity_of(name) if name else own_identity()) == identity:
        undo(name, left.get("sysctls", {}))


def _folder() -> TrustedFolder:
    """Open the folder, which is for privileged processes only. Raises OSError."""
    return TrustedFolder(LEASES, mode=0o700)


def _open(folder: TrustedFolder, name: str, flags: int = 0) -> int:
    """Open a lease of anyone's: whoever reached the folder had the privileges for it."""
    return folder.open(name, os.O_RDWR | flags, of_anyone=True)


def _is_ours_alone(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(fd: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(fd, 65536, 0) or b"{}")
    except ValueError:  # the machine went down while it was written
        return {}
    return found if isinstance(found, dict) else {}
