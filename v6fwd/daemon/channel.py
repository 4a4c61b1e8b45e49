"""The way between supervisor and worker: packets, descriptors along with them, and the end."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable

from v6fwd.daemon.messages import MAX_MESSAGE, Message, from_bytes, to_bytes

RETRY = 0.010
"""Seconds until a descriptor is sent again that the kernel did not take: unix(7) allows a user
RLIMIT_NOFILE of them under way."""

Receive = Callable[[Message, int], None]
"""Takes a message and its descriptor, -1 without one."""


class Channel:
    """One end of it, on a running event loop. Sending never waits; what does not fit is queued."""

    def __init__(
        self, sock: socket.socket, receive: Receive, ended: Callable[[], None] = lambda: None
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._receive = receive
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[bytes, int]] = deque()
        self._loop.add_reader(sock, self.read)

    def send(self, message: Message, sock: socket.socket | None = None) -> None:
        """Send a message, and a copy of a socket with it; nothing happens once the end has come."""
        if self._socket.fileno() < 0:
            return
        data = to_bytes(message)
        if self._queue or not self._put(data, -1 if sock is None else sock.fileno()):
            self._queue.append((data, -1 if sock is None else os.dup(sock.fileno())))

    def close(self) -> None:
        """Be done with it; what is queued is dropped."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for _, fd in self._queue:
            if fd >= 0:
                os.close(fd)
        self._queue.clear()

    def _put(self, data: bytes, fd: int) -> bool:
        """Whether the message is gone, or needs to go no more."""
        fds = [fd] if fd >= 0 else []
        try:
            socket.send_fds(self._socket, [data], fds, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._flush)
            return False
        except OSError as error:
            if error.errno == errno.ETOOMANYREFS:
                self._loop.call_later(RETRY, self._flush)
                return False
            # The other one is gone: reading says so, too.
        return True

    def _flush(self) -> None:
        if self._socket.fileno() < 0:
            return
        while self._queue:
            data, fd = self._queue[0]
            if not self._put(data, fd):
                return
            self._queue.popleft()
            if fd >= 0:
                os.close(fd)
        self._loop.remove_writer(self._socket)

    def read(self) -> None:
        """Take all that has come."""
        while self._socket.fileno() >= 0:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, MAX_MESSAGE, 1)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self.close()
                self._ended()
                return
            self._receive(from_bytes(data), fds[0] if fds else -1)
