"""The folder where shims find the daemon: two FIFOs, and a file that says who the daemon is.

A daemon replaces its predecessor's FIFO by its own, and keeps the former as long as it may have to
give it back: a daemon that cannot start leaves the shims to its predecessor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from v6fwd.docker.shim.process import NoShimError, start_time
from v6fwd.errors import RelayError, reason
from v6fwd.folder import TrustedFolder
from v6fwd.log import attempt

DEFAULT_FOLDER = "/run/v6fwd"
NO_HOLDER = "-"
_READ = 1 << 16  # what a FIFO holds
_MAX_LINE = 64
"""Bytes: two numbers and a word."""
_MAX_PID = 1 << 31
"""A pid_t is below: pidfd_open(2) takes no other."""

OnLine = Callable[[int, int, bool], None]
"""Takes a shim's process id, its start time in clock ticks, and whether it is about to end."""


def run_folder() -> Path:
    """Return the folder, which the shims find in the same way."""
    return Path(os.environ.get("V6FWD_RUN_DIR") or DEFAULT_FOLDER)


def read_line(line: bytes) -> tuple[int, int, bool] | None:
    """Return what a shim announces, as OnLine takes it; None for any other line."""
    words = line.split()
    if not len(words) >= 2 or not all(word.isdigit() and len(word) < 20 for word in words[:2]):
        return None
    pid, started = int(words[0]), int(words[1])
    return (pid, started, words[2:] == [b"stop"]) if 0 < pid < _MAX_PID else None


class Rendezvous:
    """The daemon's side of the folder. `on_line` is called for each line that a shim writes."""

    def __init__(self, folder: Path, on_line: OnLine) -> None:
        self._folder = folder
        self._on_line = on_line
        self._fd = -1
        """Of the FIFO `shims`; -1: not open."""
        self._inode = 0
        """Of the file `daemon` that this one wrote: a successor writes another."""
        self._rest_of_line = b""
        self._another_goes_on = False
        """Whether another daemon reads announcements, as `close` found."""

    def open(self, holder: Path | None) -> None:
        """Make what is missing, and read; a predecessor reads no more. Raises RelayError.

        `holder`: what shims become; None: there is none, so all of them use standalone mode. The
        FIFO `rest` stays the one it was: the living shims have it open.
        """
        try:
            with TrustedFolder(self._folder, mode=0o755) as folder:
                self._take_place(folder, holder)
        except OSError as error:
            raise RelayError(f"cannot meet shims in {self._folder}: {reason(error)}") from error
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def _take_place(self, folder: TrustedFolder, holder: Path | None) -> None:
        if not (self._folder / "rest").is_fifo():
            folder.make_fifo("rest")
        for name in ("shims", "daemon"):
            self._keep(name)
        folder.make_fifo("shims")
        # For writing as well: a FIFO without writers would be at its end.
        self._fd = folder.open("shims", os.O_RDWR | os.O_NONBLOCK)
        pid = os.getpid()
        folder.write("daemon", f"{pid} {start_time(pid)} {holder or NO_HOLDER}\n".encode())
        self._inode = folder.status("daemon").st_ino

    @property
    def rest(self) -> os.stat_result:
        """Return what tells this daemon's shims from those of others."""
        found = (self._folder / "rest").stat()
        assert stat.S_ISFIFO(found.st_mode)
        return found

    def close(self, shims: Iterable[int] = ()) -> bool:
        """Read no more; gives whether another living daemon does.

        A successor has written its own name by now. A predecessor that was about to be replaced
        gets its place back, and is told of `shims`, by process id: they may have come meanwhile.
        """
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            with contextlib.suppress(OSError):
                self._another_goes_on = self._leave(shims)
        return self._another_goes_on

    def _leave(self, shims: Iterable[int]) -> bool:
        name = self._folder / "daemon"
        if name.stat().st_ino != self._inode:
            return True
        name.unlink()
        return self._give_back(shims)

    def _keep(self, name: str) -> None:
        self._kept(name).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.link(self._folder / name, self._kept(name))

    def _kept(self, name: str) -> Path:
        return self._folder / f".{name}.before"

    def _give_back(self, shims: Iterable[int]) -> bool:
        """Give a living predecessor its place again. Raises OSError where none lives."""
        fd = os.open(self._kept("shims"), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            for each in ("shims", "daemon"):
                self._kept(each).rename(self._folder / each)
            for pid in shims:
                with contextlib.suppress(NoShimError, BlockingIOError):
                    os.write(fd, f"{pid} {start_time(pid)}\n".encode())
        finally:
            os.close(fd)
        return True

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return
        *lines, rest = (self._rest_of_line + data).split(b"\n")
        self._rest_of_line = rest[:_MAX_LINE]  # a longer one is no shim's
        for line in lines:
            words = read_line(line)
            if words is not None:
                attempt(self._take_line, *words)

    def _take_line(self, pid: int, started: int, stops: bool) -> None:
        """Pass a line on; a shim that comes while this daemon is replaced is the successor's, who
        scans for it."""
        if stops or self._is_in_place():
            self._on_line(pid, started, stops)

    def _is_in_place(self) -> bool:
        try:
            there = (self._folder / "shims").stat()
        except OSError:  # the folder was cleaned up: that is no successor
            return True
        return os.path.samestat(there, os.fstat(self._fd))
