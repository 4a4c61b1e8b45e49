"""The file of a pseudo store: its lock, what is done to one that is no store, and its clock."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from v6fwd.errors import RelayError

_RUBBISH = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR}
"""Codes of a file that is no database, a damaged one, or somebody else's (no such column).
Not among them: locked, full, read-only, no permission."""


def uptime() -> tuple[str, int]:
    """Which start of the machine this is, and seconds since then, suspended or not.

    CLOCK_BOOTTIME (clock_gettime(2)) cannot be set, and is one for all processes.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return boot, int(time.clock_gettime(time.CLOCK_BOOTTIME))


def is_rubbish(error: sqlite3.DatabaseError) -> bool:
    """Whether the file, and not the moment, is what is wrong."""
    # The low byte is the primary code: https://sqlite.org/rescode.html
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF in _RUBBISH


def set_aside(path: str) -> str:
    """Rename the file and what belongs to it; gives its new name. Raises OSError."""
    number = 1
    while os.path.lexists(f"{path}.broken-{number}"):
        number += 1
    aside = f"{path}.broken-{number}"
    for suffix in ("-wal", "-shm"):  # else SQLite would replay them into the new file
        with suppress(FileNotFoundError):
            os.rename(path + suffix, aside + suffix)
    os.rename(path, aside)
    return aside


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Keep other processes from opening the store meanwhile, for a moment. Raises OSError."""
    fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Turn what goes wrong into a RelayError that names the file."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        raise RelayError(f"cannot use the pseudo address store {path}: {text}") from None
