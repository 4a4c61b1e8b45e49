"""A folder for the control socket of a daemon that gives up root.

Its user must be able to put sockets there and to take them away, so the folder is the user's. It
holds nothing else: what root trusts, leases and the FIFOs where shims report, stays in folders of
root's. With the socket at /run/v6fwd/control.sock, /run/v6fwd stays root's, too; the socket is in
/run/v6fwd/control/, and a symbolic link leads there.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from pathlib import Path

from v6fwd.errors import RelayError, reason
from v6fwd.folder import NotTrustedError, TrustedFolder

SUFFIX = ".d"


def give_folder(socket: str, user: str) -> None:
    """Make a folder of `user`'s for a control socket, and a link to the socket in it.

    A socket that is there already stays, in its new place: a predecessor answers at it. Raises
    RelayError.
    """
    path, entry = Path(socket), pwd.getpwnam(user)
    if os.geteuid():  # nothing to give up, and nothing to give
        return
    try:
        with _root_folder(path.parent, entry.pw_uid) as folder:
            inner = _folder_of(path)
            _make(folder, path, inner, entry)
            _lead_to(folder, path.name, inner)
    except OSError as error:
        raise RelayError(f"cannot give {user} a folder for {path}: {reason(error)}") from error


def _folder_of(path: Path) -> str:
    """control.sock -> control, and something else where that would be the same name."""
    return path.stem if path.stem != path.name else f"{path.name}{SUFFIX}"


def _root_folder(path: Path, uid: int) -> TrustedFolder:
    """Open the folder that stays root's. Version 0.1 gave it to the user: take that back."""
    try:
        return TrustedFolder(path, mode=0o755)
    except NotTrustedError:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_uid == uid:
                os.fchown(fd, 0, 0)
        finally:
            os.close(fd)
        return TrustedFolder(path, mode=0o755)


def _make(folder: TrustedFolder, path: Path, name: str, entry: pwd.struct_passwd) -> None:
    """Make the user's folder. One that is there is given to the user if it holds sockets only."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=folder.fileno())
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=folder.fileno())
    try:
        if strangers := [other for other in os.listdir(fd) if path.name not in other]:
            raise NotTrustedError(f"{path.parent / name} holds {strangers[0]!r}, no socket of ours")
        os.fchown(fd, entry.pw_uid, entry.pw_gid)
        os.fchmod(fd, 0o755)
    finally:
        os.close(fd)


def _lead_to(folder: TrustedFolder, name: str, inner: str) -> None:
    """Put a link in the socket's place; the name leads to the same socket at every moment."""
    try:
        mode = folder.status(name).st_mode
    except FileNotFoundError:
        mode = 0
    if mode and not (stat.S_ISSOCK(mode) or stat.S_ISLNK(mode)):
        raise NotTrustedError(f"{name} is no socket")
    target = f"{inner}/{name}"
    if stat.S_ISSOCK(mode):
        fd = folder.fileno()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target, dir_fd=fd)
        os.link(name, target, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
    folder.replace(name, lambda new: os.symlink(target, new, dir_fd=folder.fileno()))
