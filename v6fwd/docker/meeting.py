"""The folder where shims and daemon meet: two FIFOs, and a file that says who the daemon is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from v6fwd.docker.shims import start_time
from v6fwd.relay.sockets import RelayError, reason

DEFAULT_FOLDER = "/run/v6fwd"
_READ = 1 << 16  # what a FIFO holds

Heard = Callable[[int, int, bool], None]
"""Takes a shim's process id, its start time, and whether it is about to end."""


def run_folder() -> Path:
    """Where the shims look, too."""
    return Path(os.environ.get("V6FWD_RUN_DIR") or DEFAULT_FOLDER)


class Meeting:
    """Our side of the folder. `heard` is called for each line that a shim writes."""

    def __init__(self, folder: Path, heard: Heard) -> None:
        self._folder = folder
        self._heard = heard
        self._fd = -1
        self._inode = 0
        self._rest_of_line = b""

    def open(self) -> None:
        """Make what is missing, and read; a daemon that was here hears no more. RelayError.

        The FIFO `rest` stays the one it was: the shims that live have it open.
        """
        try:
            self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            rest = self._folder / "rest"
            if not rest.is_fifo():
                self._replace("rest", lambda path: os.mkfifo(path, 0o600))
            self._fd = self._open_shims()
            self._replace("daemon", self._write_name)
            self._inode = (self._folder / "daemon").stat().st_ino
        except OSError as error:
            raise RelayError(f"cannot meet shims in {self._folder}: {reason(error)}") from error
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    @property
    def rest(self) -> os.stat_result:
        """What tells our shims from those of others."""
        found = (self._folder / "rest").stat()
        assert stat.S_ISFIFO(found.st_mode)
        return found

    def close(self) -> None:
        """Hear nobody any more; the name is removed unless a successor has written its own."""
        if self._fd < 0:
            return
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        name = self._folder / "daemon"
        with contextlib.suppress(OSError):
            if name.stat().st_ino == self._inode:
                name.unlink()

    def _open_shims(self) -> int:
        """Open for writing, too: a FIFO that nobody writes to would be at its end."""
        path = self._replace("shims", lambda path: os.mkfifo(path, 0o600))
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def _write_name(self, path: Path) -> None:
        pid = os.getpid()
        path.write_text(f"{pid} {start_time(pid)}\n")

    def _replace(self, name: str, make: Callable[[Path], None]) -> Path:
        """Put something new in place in one step."""
        new = self._folder / f".{name}.{os.getpid()}"
        new.unlink(missing_ok=True)
        make(new)
        return new.rename(self._folder / name)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return
        *lines, self._rest_of_line = (self._rest_of_line + data).split(b"\n")
        for line in lines:
            words = line.split()
            if len(words) >= 2 and all(word.isdigit() for word in words[:2]):
                self._heard(int(words[0]), int(words[1]), words[2:] == [b"stop"])
