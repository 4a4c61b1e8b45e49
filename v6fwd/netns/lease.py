"""Who uses a network namespace at present, across processes, and what must be undone in it.

A lease is a file in LEASES, named after the namespace, that its users lock shared (flock(2)).
Whoever can lock it alone is the last: it undoes, and removes the file. The kernel gives locks
back when a process dies, whatever of; so a lease that nobody has locked was left by a kill,
and the next one who comes by undoes that.
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
from v6fwd.netns.handle import own_identity
from v6fwd.netns.namespace import identity_of

LEASES = Path("/run/v6fwd/netns")
"""One place for all processes, whoever started them: they must see each other's leases."""
OWN = ""
"""The name of the namespace that the process itself is in."""

Undo = Callable[[str, dict[str, str]], None]
"""Takes the name of a namespace and the sysctls to be put back, by path and value."""


class Lease:
    """Our share in a namespace. Made under `leases_locked`."""

    def __init__(self, identity: str, name: str) -> None:
        """Take it. Raises OSError."""
        self._path = LEASES / identity
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        self.sysctls = _read(self._fd).get("sysctls", {})
        self._name = name
        self._write()

    def remember(self, sysctl: str, value: str) -> None:
        """A sysctl was `value` before we changed it; what was first remembered stays."""
        self.sysctls = _read(self._fd).get("sysctls", {})
        self.sysctls.setdefault(sysctl, value)
        self._write()

    def give_back(self, undo: Callable[[dict[str, str]], None]) -> None:
        """Let go; calls `undo` with the sysctls to be put back if nobody else has a share."""
        try:
            if _is_ours_alone(self._fd):
                undo(_read(self._fd).get("sysctls", {}))
                self._path.unlink(missing_ok=True)
        finally:
            os.close(self._fd)

    def _write(self) -> None:
        text = json.dumps({"name": self._name, "sysctls": self.sysctls})
        os.pwrite(self._fd, text.encode(), 0)
        os.ftruncate(self._fd, len(text.encode()))


@contextlib.contextmanager
def leases_locked() -> Iterator[None]:
    """Nobody else takes or gives back a lease meanwhile. Raises RelayError."""
    try:
        LEASES.mkdir(parents=True, exist_ok=True)
        fd = os.open(LEASES / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RelayError(f"cannot write to {LEASES}: {reason(error)}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def undo_the_dead(undo: Undo) -> int:
    """Undo what killed processes left, where that can still be reached; gives how many there were.

    To be called under `leases_locked`.
    """
    count = 0
    for path in LEASES.iterdir():
        if path.name == "lock":
            continue
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if _is_ours_alone(fd):
                left = _read(fd)
                name = left.get("name", OWN)
                if (identity_of(name) if name else own_identity()) == path.name:
                    undo(name, left.get("sysctls", {}))
                path.unlink(missing_ok=True)
                count += 1
        finally:
            os.close(fd)
    return count


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
