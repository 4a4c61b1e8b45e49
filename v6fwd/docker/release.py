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
from v6fwd.log import Log


def release(folder: Path) -> int:
    """Send every shim that waits in the run folder into standalone mode; gives how many.

    IPv4 clients go straight to the containers again. Raises RelayError while a daemon lives.
    """
    return asyncio.run(_release(folder))


async def _release(folder: Path) -> int:
    daemon = _living_daemon(folder)
    if daemon:
        raise RelayError(f"process {daemon} serves these ports; stop `v6fwd serve --docker` first")
    RedirectTable().close()
    DockerUser(Log()).set(())
    LegacyGuard(Log()).set(())
    try:
        rest = (folder / "rest").stat()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise RelayError(f"cannot look into {folder}: {reason(error)}") from error
    return sum(_let_go(pid, rest) for pid in shims_of(rest))


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
