"""Folders that a privileged process may trust, and files in them that are reached by nobody's link.

Whoever may write to a folder, or to one above it, decides what its names lead to. So every folder
on the way is opened by the one before it and checked by fstat(2): it is root's or our own, and no
other user may write to it, unless it is sticky, as /tmp. Files are opened by the folder's
descriptor, never by a path, and never through a symbolic link. Modes are as given, whatever the
umask.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def state_folder(pseudo_store: str) -> Path:
    """Return where state is kept: systemd's StateDirectory=, else beside the pseudo addresses."""
    return Path(os.environ.get("STATE_DIRECTORY") or Path(pseudo_store).parent)


class NotTrustedError(OSError):
    """Another user decides what is in a folder or a file. The text says which."""


class TrustedFolder:
    """An open folder. A context manager; all names are of files right in it."""

    def __init__(self, path: Path, *, mode: int = 0o700) -> None:
        """Open it, or make it; it has no rights beyond `mode` then. Folders above it are made
        with 0755.

        Symbolic links are followed above it, since an operator made them, but not in its place.
        Raises OSError, NotTrustedError.
        """
        self.path = path
        self._fd = _open_root()
        try:
            above = Path(os.path.realpath(path.parent))
            for name in above.parts[1:]:
                self._step(name, 0o755)
            self._step(path.name, mode)
            if stat.S_IMODE(os.fstat(self._fd).st_mode) & ~mode:
                with contextlib.suppress(PermissionError):  # not its owner, but with privileges
                    os.fchmod(self._fd, mode)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> TrustedFolder:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def fileno(self) -> int:
        """The folder's descriptor, for *at(2)."""
        return self._fd

    def _step(self, name: str, mode: int) -> None:
        """Go one folder down."""
        try:
            os.mkdir(name, mode, dir_fd=self._fd)
            is_new = True
        except FileExistsError:
            is_new = False
        fd = os.open(name, _OPEN, dir_fd=self._fd)
        os.close(self._fd)
        self._fd = fd
        if is_new:
            os.fchmod(fd, mode)
        _check(os.fstat(fd), f"{self.path}: folder {name}")

    # -- files --

    def open(self, name: str, flags: int, mode: int = 0o600, *, of_anyone: bool = False) -> int:
        """Open a regular file or a FIFO of root's or our own, with `flags` of open(2).

        One that O_CREAT makes has exactly `mode`. `of_anyone`: also another user's, where the
        folder lets in nobody but processes with privileges. Raises OSError, NotTrustedError.
        """
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
        if flags & os.O_CREAT:
            with contextlib.suppress(FileExistsError):
                fd = os.open(_plain(name), flags | os.O_EXCL, mode, dir_fd=self._fd)
                os.fchmod(fd, mode)
                return fd
        fd = os.open(_plain(name), flags & ~os.O_CREAT, dir_fd=self._fd)
        try:
            _check_kind(os.fstat(fd), f"{self.path / name}")
            if not of_anyone:
                _check(os.fstat(fd), f"{self.path / name}")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def read(self, name: str, limit: int = 1 << 16) -> bytes:
        """Return at most `limit` bytes of a file. Raises OSError, NotTrustedError."""
        fd = self.open(name, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            return file.read(limit) or b""

    def write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        """Put a file in place in one step. Raises OSError."""

        def make(new: str) -> None:
            with os.fdopen(
                self.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb"
            ) as file:
                file.write(data)

        self.replace(name, make)

    def make_fifo(self, name: str, mode: int = 0o600) -> None:
        """Put a new FIFO in place in one step. Raises OSError."""

        def make(new: str) -> None:
            os.mkfifo(new, mode, dir_fd=self._fd)
            os.chmod(new, mode, dir_fd=self._fd)  # new, so no link; mkfifo(3) minds the umask

        self.replace(name, make)

    def replace(self, name: str, make: Callable[[str], object]) -> None:
        """Put in place, in one step, what `make` makes under another name. Raises OSError."""
        new = f".{_plain(name)}.{os.getpid()}"
        self.unlink(new)
        make(new)
        os.rename(new, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def unlink(self, name: str) -> None:
        """Remove a name if it is there; never what a link leads to. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_plain(name), dir_fd=self._fd)

    def names(self) -> list[str]:
        """Return what is in the folder. Raises OSError."""
        return os.listdir(self._fd)

    def status(self, name: str) -> os.stat_result:
        """Return lstat(2) of a name. Raises OSError."""
        return os.stat(_plain(name), dir_fd=self._fd, follow_symlinks=False)


def _open_root() -> int:
    return os.open("/", _OPEN)


def _plain(name: str) -> str:
    if "/" in name or name in ("", ".", ".."):
        raise NotTrustedError(f"{name!r} is no name of a file")
    return name


def _check(status: os.stat_result, what: str) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise NotTrustedError(f"{what} belongs to user {status.st_uid}")
    is_sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & _OTHERS_WRITE and not is_sticky:
        raise NotTrustedError(f"others may write to {what}")


def _check_kind(status: os.stat_result, what: str) -> None:
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
        raise NotTrustedError(f"{what} is no regular file")
