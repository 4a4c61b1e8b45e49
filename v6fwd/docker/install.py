"""Makes dockerd use the shim, and undoes that: daemon.json, its backup, where the shim is."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from v6fwd.docker.daemon_json import KEY, installed, uninstalled, value_of
from v6fwd.model import InputError

SHIM = "v6fwd-docker-proxy"
_Result = TypeVar("_Result")
BACKUP_SUFFIX = ".before-v6fwd"


DAEMON_JSON = Path("/etc/docker/daemon.json")
"""Where dockerd reads its configuration."""


def rootless_daemon_json() -> Path:
    """Return where a rootless dockerd of this user reads its configuration."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home, "docker", "daemon.json")


def daemon_json_to_change(*, rootless: bool) -> Path:
    """Return the file of root's Docker or of this user's. Raises InputError without root."""
    if rootless:
        return rootless_daemon_json()
    if os.geteuid() != 0:
        raise InputError(
            f"{DAEMON_JSON} is root's, so run this as root; {rootless_daemon_json()} is read by a"
            " rootless Docker of yours and by no other: add --rootless if you mean that one"
        )
    return DAEMON_JSON


def find_shim() -> Path:
    """Return the shim's absolute path, beside the running program. Raises InputError."""
    beside = [Path(sys.argv[0]).absolute().parent, Path(sysconfig.get_path("scripts"))]
    for folder in beside:
        if os.access(folder / SHIM, os.X_OK):
            return folder / SHIM
    found = shutil.which(SHIM)
    if found is None:
        raise InputError(f"{SHIM} is not installed beside {beside[0] / 'v6fwd'}")
    return Path(found).absolute()


class DaemonJson:
    """dockerd's configuration file, which need not exist, and its backup beside it."""

    def __init__(self, path: Path) -> None:
        # A link stays a link: configurations are often kept elsewhere.
        self.path = path.resolve()
        self.backup = self.path.with_name(self.path.name + BACKUP_SUFFIX)

    def value(self, key: str) -> object:
        """Return what it sets; None without the key. Raises InputError, naming the file."""
        return self._edited(lambda data: value_of(data, key))

    def install(self, shim: Path) -> bool:
        """Set the shim; gives whether that was new. Raises InputError or OSError."""
        before = self._read()
        after = self._edited(lambda data: installed(data, str(shim)))
        if after == before:
            return False
        if before is not None and not self.backup.exists():
            shutil.copy2(self.path, self.backup)
        self._write(after)
        return True

    def uninstall(self) -> bool:
        """Restore what was there before; gives whether there was something to do.

        Another program's proxy stays. Raises InputError or OSError.
        """
        if os.path.basename(str(self.value(KEY))) != SHIM:
            return False
        before = self.backup.read_bytes() if self.backup.exists() else b""
        after = self._edited(lambda data: uninstalled(data, before))
        if after.strip() or self.backup.exists():
            self._write(after)
        else:
            self.path.unlink()  # it was not there before
        self.backup.unlink(missing_ok=True)
        return True

    def _read(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def _edited(self, edit: Callable[[bytes], _Result]) -> _Result:
        try:
            return edit(self._read() or b"")
        except InputError as error:
            raise InputError(f"{self.path} is left as it is: {error}") from None

    def _write(self, data: bytes) -> None:
        """All or nothing, with the owner and mode that the file has."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=f"{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._take_over_owner(name)
            os.replace(name, self.path)
        except BaseException:
            os.unlink(name)
            raise

    def _take_over_owner(self, name: str) -> None:
        if self.path.exists():
            status = self.path.stat()
            os.chown(name, status.st_uid, status.st_gid)
            os.chmod(name, status.st_mode & 0o7777)
        else:
            os.chmod(name, 0o644)
