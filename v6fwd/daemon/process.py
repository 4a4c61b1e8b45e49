"""Forking the processes of the daemon: what parent and child must do about it."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from v6fwd.daemon.usage import ChildUsage
from v6fwd.log import Log

_IGNORED = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
    *(signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2),
)
"""Sent to the whole process group by a terminal or a service manager: the supervisor decides."""


@dataclass(frozen=True, slots=True)
class Child:
    """A child of this process, until it is waited for."""

    pid: int
    pidfd: int
    usage: ChildUsage
    """What it takes."""

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def wait(self) -> int:
        """Return its wait status, and let go of it: nothing may be done with it afterwards."""
        try:
            return os.waitpid(self.pid, 0)[1]
        finally:
            os.close(self.pidfd)
            self.usage.close()


def fork(main: Callable[[], int], keep: Iterable[int], log: Log) -> Child:
    """Run `main` in a child, which keeps these descriptors and ends with its status.

    Forked and not executed anew: it shares all memory that is not written to. Signals are
    blocked meanwhile, lest one meets the supervisor's handlers in the child. Raises OSError, and
    there is no child then.
    """
    gc.collect()
    gc.freeze()  # or the child's first collection would copy every page there is
    usage = ChildUsage()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    try:
        pid = os.fork()
        if not pid:
            _be_child(main, keep, log, blocked, usage)
    except OSError:
        usage.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    usage.forked()
    try:
        return Child(pid, os.pidfd_open(pid), usage)
    except OSError:  # no descriptor is left
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        usage.close()
        raise


def _be_child(
    main: Callable[[], int], keep: Iterable[int], log: Log, mask: set[Any], usage: ChildUsage
) -> NoReturn:
    """The whole life of the child; it ends here, whatever the supervisor would do next."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        usage.pass_own()
        _close_others(*keep)
        status = main()
    except BaseException as error:
        log.error("failed", f"a worker failed: {error!r}")
    finally:
        os._exit(status)


def _close_others(*ours: int) -> None:
    """Close what was the supervisor's: all but the standard descriptors and `ours`."""
    ends = [*sorted(ours), os.sysconf("SC_OPEN_MAX")]
    for before, end in zip([2, *ends], ends, strict=False):
        os.closerange(before + 1, end)
