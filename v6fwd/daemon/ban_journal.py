"""Keeps bans over a restart: a file with a line for each change.

    + 2001:db8:1::/64 1764370000
    - 2001:db8:1::/64

The number is when the ban ends, in seconds since 1970; 0: never. A line is appended by one
write(2), so that two daemons may do it while one takes over from the other. A file with many lines
that mean nothing any more is replaced in one step.

The folder is the daemon's user's, 0700. A file that another user could have written is not read.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
from _blake2 import blake2b  # hashlib brings OpenSSL, 3.4 MB
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from v6fwd.config import Control
from v6fwd.errors import reason
from v6fwd.folder import TrustedFolder, state_folder
from v6fwd.log import Log
from v6fwd.model import IPNetwork, Transparent
from v6fwd.relay.limits.bans import BanTable, TableFullError

NAME = "bans"
FOLDER = "daemon"
SPARE = 1000
"""Lines that may mean nothing any more, beside as many as there are bans."""
_MAX_UNTIL = (1 << 32) - 1

Tell = Callable[[str], None]
Ban = tuple[IPNetwork, int]


def journal_path(control: str) -> Path:
    """The file of the daemon with this control socket, below systemd's StateDirectory=.

    By the socket's name: with `user`, that becomes a link.
    """
    mark = blake2b(os.path.abspath(control).encode(), digest_size=4).hexdigest()
    name = NAME if control == Control().socket else f"{NAME}-{mark}"
    return state_folder(Transparent().pseudo_store) / FOLDER / name


class BanJournal:
    """The file. What goes wrong with it is told, and costs no ban but after a restart."""

    def __init__(self, path: Path, tell: Tell) -> None:
        self._path = path
        self._tell = tell
        self._lines = 0
        self._read_to = 0
        self._inode = 0

    # -- reading --

    def load(self, table: BanTable) -> None:
        """Ban who was banned before."""
        self._read_to = self._lines = 0
        self._read(table)

    def catch_up(self, table: BanTable) -> None:
        """Read what a predecessor has written since `load`; it writes no more."""
        before = self._inode
        if self._inode_now() == before:
            self._read(table)
            return
        known = {network for network, _ in table}
        self.load(table)
        kept = {network for network, _ in self._bans(0)}
        for network in known - kept:
            table.remove(network)

    def _inode_now(self) -> int:
        try:
            return self._path.stat().st_ino
        except OSError:
            return 0

    def _read(self, table: BanTable) -> None:
        for network, until in self._bans(self._read_to):
            try:
                if until < 0 or table.is_over(until):
                    table.remove(network)
                else:
                    table.add(network, until)
            except TableFullError:
                self._tell("more bans than there is room for: the others are not in force")
                return

    def _bans(self, start: int) -> Iterator[Ban]:
        """The lines from a place on; -1 instead of an end: the ban is over."""
        unreadable = 0
        try:
            if not self._path.exists():  # raises for a folder of another user's
                return
            with TrustedFolder(self._path.parent) as folder:
                fd = folder.open(self._path.name, os.O_RDONLY)
            with os.fdopen(fd, "rb") as file:
                self._inode = os.fstat(fd).st_ino
                file.seek(start)
                for line in file:
                    self._lines += 1
                    if (ban := _parsed(line)) is None:
                        unreadable += 1
                    else:
                        yield ban
                self._read_to = file.tell()
        except OSError as error:
            self._tell(f"cannot use {self._path}: {reason(error)}; nobody in it is banned")
        if unreadable:
            self._tell(f"{unreadable} lines of {self._path} cannot be read")

    # -- writing --

    def append(self, bans: Iterable[Ban]) -> str:
        """Write that these are banned, or are no more with an end of -1; return what failed."""
        lines = [_line(ban) for ban in bans]
        self._lines += len(lines)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            with TrustedFolder(self._path.parent) as folder:
                fd = folder.open(self._path.name, flags)
            with os.fdopen(fd, "ab", buffering=0) as file:
                file.write(b"".join(lines))
        except OSError as error:
            return self._failed(error)
        return ""

    def tidy(self, table: BanTable, *, at_once: bool = False) -> None:
        """Replace the file if many lines of it mean nothing any more; `at_once`: if any do."""
        useless = self._lines - len(table)
        if useless <= (0 if at_once else len(table) + SPARE):
            return
        data = b"".join(_line(ban) for ban in table)
        try:
            with TrustedFolder(self._path.parent) as folder:
                folder.write(self._path.name, data)
        except OSError as error:
            self._tell(self._failed(error))
        self._lines = len(table)

    def _failed(self, error: OSError) -> str:
        return f"cannot write {self._path}: {reason(error)}; bans end with this daemon"


def _line(ban: Ban) -> bytes:
    network, until = ban
    return f"- {network}\n".encode() if until < 0 else f"+ {network} {until}\n".encode()


def _parsed(line: bytes) -> Ban | None:
    """None for what `_line` has not written: a line that was cut, as in a crash of the machine."""
    try:
        sign, text, *rest = line.decode("ascii").split(" ")
        if not line.endswith(b"\n") or sign not in ("+", "-"):
            return None
        network = ipaddress.ip_network(text.strip())
        until = int(rest[0]) if sign == "+" else -1
    except (ValueError, IndexError):
        return None
    return (network, until) if until <= _MAX_UNTIL else None


def give_journal(path: Path, user: str, log: Log) -> None:
    """Let `user` have the folder, before root becomes that user. What fails is logged."""
    entry = pwd.getpwnam(user)
    if os.geteuid() or not entry.pw_uid:
        return
    try:
        if path.parent.exists() and path.parent.stat().st_uid == entry.pw_uid:
            return
        TrustedFolder(path.parent.parent, mode=0o755).close()
        with TrustedFolder(path.parent) as folder:
            _give(folder, entry)
    except OSError as error:
        log.warning("ban-file", f"bans end with this daemon: {reason(error)}")


def _give(folder: TrustedFolder, entry: pwd.struct_passwd) -> None:
    """The folder is root's own: nobody else has put a link into it."""
    for name in folder.names():
        if name.startswith(NAME):
            ids = entry.pw_uid, entry.pw_gid
            os.chown(name, *ids, dir_fd=folder.fileno(), follow_symlinks=False)
    os.fchown(folder.fileno(), entry.pw_uid, entry.pw_gid)
