"""A listening unix socket at a path: put there in one step, whoever had the path before."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
from pathlib import Path

from v6fwd.errors import RelayError


class UnixListener:
    """The socket. The mode of its file, 0600 or 0660 with a group, decides who may connect."""

    def __init__(self, path: Path, group: str, what: str) -> None:
        """Raises OSError; KeyError if there is no such group; RelayError if a file is there.

        `what` names the socket in that error.
        """
        if path.exists() and not path.is_socket():
            raise RelayError(f"cannot listen on {what} {path}: a file is there")
        self._path = path.resolve()  # a link of root's leads to the folder of our user
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.setblocking(False)
            new.unlink(missing_ok=True)
            sock.bind(str(new))
            undo.callback(new.unlink, missing_ok=True)
            new.chmod(0o600)
            if group:
                _give_to_group(new, grp.getgrnam(group).gr_gid)
                new.chmod(0o660)
            sock.listen()  # nobody can connect before
            self._inode = new.stat().st_ino
            new.rename(self._path)
            undo.pop_all()
        self.socket = sock

    def remove(self) -> None:
        """Remove the path unless a successor has it."""
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()


def _give_to_group(path: Path, gid: int) -> None:
    """Let a group have a file. Raises OSError.

    Without CAP_CHOWN, which the unit for Docker does not give, it must be a group of this process:
    CAP_SETGID makes it one for a moment.
    """
    own = os.getegid()
    try:
        os.chown(path, -1, gid)
    except PermissionError:
        os.setegid(gid)
        try:
            os.chown(path, -1, gid)
        finally:
            os.setegid(own)
