"""Lets the shims go on alone after the daemon was stopped for good."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from v6fwd.docker.docker_user import DockerUser
from v6fwd.docker.legacy_guard import LegacyGuard
from v6fwd.docker.nft import RedirectTable
from v6fwd.docker.shim.process import LET_GO, NoShimError, Shim, shims_of, start_time
from v6fwd.errors import RelayError, reason
from v6fwd.log import Log, counted


def release(folder: Path) -> int:
    """Send every shim that waits in the run folder into standalone mode; gives how many.

    IPv4 clients go straight to the containers again. Raises RelayError while a daemon lives, and
    where firewall rules stay: the shims go on alone all the same, as their clients hang.
    """
    return asyncio.run(_release(folder))


async def _release(folder: Path) -> int:
    daemon = _living_daemon(folder)
    if daemon:
        raise RelayError(f"process {daemon} serves these ports; stop `v6fwd serve --docker` first")
    left = _remove_rules()
    count = sum(_let_go(pid, rest) for rest in _rest(folder) for pid in shims_of(rest))
    if left:
        raise RelayError(f"released {counted(count, 'shim')}, but rules for IPv4 stay: {left}")
    return count


def _remove_rules() -> str:
    """Delete what the daemon left in the firewall; gives why that failed."""
    DockerUser(Log()).set(())
    LegacyGuard(Log()).set(())
    try:
        RedirectTable().close()
    except RelayError as error:
        return str(error)
    return ""


def _rest(folder: Path) -> list[os.stat_result]:
    """The FIFO by which shims are known, if a daemon has ever run. Raises RelayError."""
    try:
        return [(folder / "rest").stat()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RelayError(f"cannot look into {folder}: {reason(error)}") from error


def _living_daemon(folder: Path) -> int:
    """Return the process id that the file `daemon` names, if it is that process still."""
    try:
        pid, started = (folder / "daemon").read_text().split()[:2]
        return int(pid) if start_time(int(pid)) == int(started) else 0
    except (OSError, ValueError, NoShimError):
        return 0


def _let_go(pid: int, rest: os.stat_result) -> bool:
    try:
        shim = Shim.find(pid, rest)
    except NoShimError:
        return False
    shim.tell(LET_GO)
    shim.close()
    return True
