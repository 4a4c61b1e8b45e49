"""A small file of root's own, which nobody else can have written or redirected."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_SIZE = 16 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class StateFile:
    """Read and replaced as a whole, in a folder that belongs to this user alone.

    Whoever may write to the folder may replace the file, so both are checked by descriptor.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self._folder = folder
        self._name = name

    def read(self) -> str:
        """Return its content, "" where there is none. Raises OSError, also for a file or folder
        that is not this user's alone, and UnicodeDecodeError."""
        try:
            with self._open_folder() as folder:
                fd = os.open(self._name, _OLD, dir_fd=folder)
        except FileNotFoundError:
            return ""
        with os.fdopen(fd, "rb") as file:
            _check(os.fstat(fd), stat.S_ISREG, 0o077)
            data = file.read(MAX_SIZE + 1)
        if len(data) > MAX_SIZE:
            raise OSError(f"it has more than {MAX_SIZE} bytes")
        return data.decode()

    def write(self, text: str) -> None:
        """Replace it atomically, with mode 0600. Raises OSError.

        Nothing is synced to disk: the content is void after a reboot.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = f".{self._name}.{os.getpid()}"
        with self._open_folder() as folder:
            try:
                fd = os.open(new, _NEW, 0o600, dir_fd=folder)
                with os.fdopen(fd, "wb") as file:
                    os.fchmod(fd, 0o600)  # whatever the umask
                    file.write(text.encode())
                os.rename(new, self._name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                _unlink(new, folder)
                raise

    @contextmanager
    def _open_folder(self) -> Iterator[int]:
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _check(os.fstat(fd), stat.S_ISDIR, 0o022)
            yield fd
        finally:
            os.close(fd)


def _check(found: os.stat_result, is_kind: Callable[[int], bool], forbidden: int) -> None:
    if not is_kind(found.st_mode):
        raise OSError("it is of another kind")
    if found.st_uid != os.geteuid():
        raise OSError(f"it belongs to user {found.st_uid}")
    if found.st_mode & forbidden:
        raise OSError(f"its mode {stat.S_IMODE(found.st_mode):o} lets others in")


def _unlink(name: str, folder: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
