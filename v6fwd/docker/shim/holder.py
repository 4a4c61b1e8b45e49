"""Finds the holder, the small program that a shim becomes while a daemon serves its port."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

from v6fwd.errors import RelayError, reason

HOLDER = "hold-"
"""What its name begins with; the machine follows, as uname(1) prints it."""
FOLDER = Path(__file__).with_name("hold")
_PATIENCE = 10.0  # seconds


def find_holder(folder: Path = FOLDER) -> Path:
    """Return the one that runs on this machine. Raises RelayError, which says what to do."""
    path = folder / f"{HOLDER}{os.uname().machine}"
    try:
        status = _run(path)
    except FileNotFoundError:
        raise RelayError(f"{path} is missing; scripts/build-hold builds it") from None
    except OSError as error:
        raise RelayError(f"{path} does not run here: {reason(error)}") from error
    if status:
        raise RelayError(f"{path} does not run here: exit status {status}")
    return path


def _run(path: Path) -> int:
    """Run a program without words; gives its exit status, negative for a signal. Raises OSError.

    Not by subprocess, which waits without a limit until nobody has its pipe for errors open.
    """
    pid = os.posix_spawn(path, [str(path)], os.environ)
    try:
        child = os.pidfd_open(pid)
        try:
            ended = select.poll()
            ended.register(child, select.POLLIN)
            if not ended.poll(_PATIENCE * 1000):
                os.kill(pid, signal.SIGKILL)
        finally:
            os.close(child)
    finally:
        status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status)
