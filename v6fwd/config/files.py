"""Reads a configuration file without ever waiting for it: a regular file, up to a size.

The supervisor reads while it serves. A FIFO would block it until somebody writes, a device such
as /dev/zero never ends, and opening some devices has effects (a watchdog, a tape).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from v6fwd.model import InputError

MAX_FILE = 16 << 20
"""Bytes: 100,000 forwards of 160 bytes."""
_CHUNK = 1 << 16
_NULL_DEVICE = os.makedev(1, 3)
"""/dev/null, Documentation/admin-guide/devices.txt: an empty configuration."""


def read_file(path: Path, *, any_kind: bool = False) -> str:
    """The text of a file. Symbolic links are followed.

    `any_kind`: take pipes and terminals too and wait for them, as `-c /dev/stdin` needs it.
    Raises OSError, InputError for what is no regular file or too large, UnicodeDecodeError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if any_kind else _open_regular(path)
    try:
        text = _read_all(fd).decode("utf-8")
    finally:
        os.close(fd)
    if text.startswith("\N{BYTE ORDER MARK}"):
        raise InputError("it begins with a byte-order mark; save it as UTF-8 without one")
    return text


def _open_regular(path: Path) -> int:
    _refuse_others(os.stat(path))  # before it is opened: that alone can have effects
    # O_NONBLOCK: nothing blocks if the path leads elsewhere by now, and /proc/kmsg does not wait.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        _refuse_others(os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_others(status: os.stat_result) -> None:
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    is_null = stat.S_ISCHR(mode) and status.st_rdev == _NULL_DEVICE
    if not (stat.S_ISREG(mode) or is_null):
        raise InputError("not a regular file")


def _read_all(fd: int) -> bytes:
    data = bytearray()
    while chunk := os.read(fd, _CHUNK):
        data += chunk
        if len(data) > MAX_FILE:
            raise InputError(f"larger than {MAX_FILE >> 20} MiB")
    return bytes(data)
