"""A worker's helper, seen from the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable

from v6fwd.daemon.channel import Channel
from v6fwd.daemon.messages import Message, read_nothing
from v6fwd.daemon.privileges import TRANSPARENT, restrict
from v6fwd.daemon.process import fork
from v6fwd.daemon.seccomp import confine, is_strict
from v6fwd.log import Log


class HelperHandle:
    """A helper process and the supervisor's end of its channel, on a running event loop."""

    def __init__(self, log: Log, ended: Callable[[HelperHandle], None]) -> None:
        """Fork it. `ended` is called when it is no more. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.for_worker, of_worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, of_worker:
            keep = theirs.fileno(), of_worker.fileno()
            self.pid, self.usage = fork(lambda: _be_helper(theirs, of_worker, log), keep, log)
        self._pidfd = os.pidfd_open(self.pid)
        self._channel = Channel(ours, read_nothing, lambda *_: None, violated=lambda _: self.kill())
        asyncio.get_running_loop().add_reader(self._pidfd, self._over, ended)

    def send(self, message: Message) -> None:
        """Send a permit, or revoke one."""
        self._channel.send(message)

    def release(self) -> None:
        """The worker has its socket, or is dead: when that is closed the helper ends."""
        self.for_worker.close()

    def kill(self) -> None:
        """End it at once. What it has put into namespaces, the next user of them undoes."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _over(self, ended: Callable[[HelperHandle], None]) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        self.usage.close()
        self._channel.close()
        self.for_worker.close()
        ended(self)


def _be_helper(control: socket.socket, worker: socket.socket, log: Log) -> int:
    from v6fwd.daemon.helper import main

    restrict(TRANSPARENT)
    confine(privileged=True, strict=is_strict())
    return main(control, worker, log)
