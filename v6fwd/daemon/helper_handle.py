"""A worker's helper, seen from the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from v6fwd.daemon.channel import Channel
from v6fwd.daemon.messages import Message, read_nothing
from v6fwd.daemon.privileges import TRANSPARENT, restrict
from v6fwd.daemon.process import fork
from v6fwd.daemon.seccomp import confine, is_strict
from v6fwd.daemon.usage import ChildUsage
from v6fwd.log import Log


class HelperHandle:
    """A helper process and the supervisor's end of its channel, on a running event loop."""

    def __init__(self, log: Log, ended: Callable[[HelperHandle], None]) -> None:
        """Fork it. `ended` is called when it is no more. Raises OSError."""
        with contextlib.ExitStack() as undo:
            ours, theirs = map(undo.enter_context, _pair())
            self.for_worker, of_worker = map(undo.enter_context, _pair())
            keep = theirs.fileno(), of_worker.fileno()
            self._child = fork(lambda: _be_helper(theirs, of_worker, log), keep, log)
            undo.callback(self._discard)
            self._channel = Channel(
                ours, read_nothing, lambda *_: None, violated=lambda _: self.kill()
            )
            undo.callback(self._channel.close)
            asyncio.get_running_loop().add_reader(self._child.pidfd, self._over, ended)
            undo.pop_all()
        theirs.close()
        of_worker.close()

    @property
    def usage(self) -> ChildUsage:
        """What the process takes."""
        return self._child.usage

    def _discard(self) -> None:
        self._child.kill()
        self._child.wait()

    def send(self, message: Message) -> None:
        """Send a permit, or revoke one."""
        self._channel.send(message)

    def release(self) -> None:
        """The worker has its socket, or is dead: when that is closed the helper ends."""
        self.for_worker.close()

    def kill(self) -> None:
        """End it at once. What it has put into namespaces, the next user of them undoes."""
        self._child.kill()

    def _over(self, ended: Callable[[HelperHandle], None]) -> None:
        asyncio.get_running_loop().remove_reader(self._child.pidfd)
        self._child.wait()
        self._channel.close()
        self.for_worker.close()
        ended(self)


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _be_helper(control: socket.socket, worker: socket.socket, log: Log) -> int:
    from v6fwd.daemon.helper import main

    restrict(TRANSPARENT)
    confine(privileged=True, strict=is_strict())
    return main(control, worker, log)
