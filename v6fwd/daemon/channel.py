"""The channel between supervisor and worker: packets, descriptors along with them, and its end."""

from __future__ import annotations

import array
import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable

from v6fwd.daemon.messages import MAX_MESSAGE, Message, MessageError, to_bytes

RETRY = 0.010
"""Seconds until a message is sent again for which the kernel was short of something."""
SHORT = {errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM}
"""The first: unix(7) allows a user RLIMIT_NOFILE descriptors under way."""
BATCH = 64
"""Messages read before the event loop may do something else: one end cannot starve the other."""
_INT = array.array("i").itemsize

_buffer = bytearray(MAX_MESSAGE)
"""Of all channels of a process: there from the start, since reading must not need memory."""

Read = Callable[[bytes], Message]
"""Decodes a packet; raises MessageError."""
Receive = Callable[[Message, int], None]
"""Takes a message and its descriptor, -1 without one."""


def _nothing(_: str) -> None:
    pass


class Channel:
    """One end, on a running event loop. Sending never blocks; what does not fit is queued."""

    def __init__(
        self,
        sock: socket.socket,
        read: Read,
        receive: Receive,
        *,
        ended: Callable[[], None] = lambda: None,
        violated: Callable[[str], None] = _nothing,
        takes_sockets: bool = False,
    ) -> None:
        """`ended` is called when the other end has closed, `violated` with the reason when it
        sends what is no message: nothing is read from then on."""
        sock.setblocking(False)
        self._socket = sock
        self._decode = read
        self._receive = receive
        self._ended = ended
        self._violated = violated
        self._room = socket.CMSG_LEN(_INT) if takes_sockets else 0
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[bytes, socket.SocketIO | None]] = deque()
        self._waits = False  # somebody will call _flush
        self._loop.add_reader(sock, self.read)

    def send(self, message: Message, sock: socket.socket | None = None) -> None:
        """Send a message, and a copy of a socket with it. After the end, do nothing.

        The caller may close its socket at once: the queue keeps it open, without a descriptor more.
        Raises MemoryError before anything is sent, or queues the message for the next time.
        """
        if self._socket.fileno() < 0:
            return
        kept = None if sock is None else sock.makefile("rb", buffering=0)
        self._queue.append((to_bytes(message), kept))
        if not self._waits:
            self._flush()

    @property
    def queued(self) -> int:
        """Messages that the other end has not taken yet."""
        return len(self._queue)

    def close(self) -> None:
        """Close this end; what is queued is dropped."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for _, kept in self._queue:
            if kept is not None:
                kept.close()
        self._queue.clear()

    def _flush(self) -> None:
        self._waits = False
        while self._queue and self._socket.fileno() >= 0:
            if not self._put(*self._queue[0]):
                return
            _, kept = self._queue.popleft()
            if kept is not None:
                kept.close()

    def _put(self, data: bytes, kept: socket.SocketIO | None) -> bool:
        """Whether the message is gone, or needs to go no more. If not, `_flush` is called again."""
        fds = [] if kept is None else [kept.fileno()]
        try:
            socket.send_fds(self._socket, [data], fds, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._writable)
        except OSError as error:
            if error.errno not in SHORT:  # the other end is gone: reading reports that, too
                return True
            self._loop.call_later(RETRY, self._flush)
        else:
            return True
        self._waits = True
        return False

    def _writable(self) -> None:
        self._loop.remove_writer(self._socket)
        self._flush()

    def read(self) -> None:
        """Receive what has come, up to BATCH messages; the rest has its turn later."""
        for _ in range(BATCH):
            if self._socket.fileno() < 0 or not self._read_one():
                return

    def read_all(self) -> None:
        """Receive the last words of a process that has ended."""
        while self._socket.fileno() >= 0 and self._read_one():
            pass

    def _read_one(self) -> bool:
        """Receive a message; whether there may be another one."""
        try:
            # Without room for them the kernel closes descriptors that nobody wants (unix(7)).
            size, ancillary, _, _ = self._socket.recvmsg_into(
                [_buffer], self._room, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        except OSError:
            size, ancillary = 0, []
        fd = _descriptor(ancillary)
        if not size:
            self.close()
            self._ended()
            return False
        try:
            message = self._decode(bytes(memoryview(_buffer)[:size]))
        except (MessageError, MemoryError) as error:  # one that is lost leaves the ends at odds
            if fd >= 0:
                os.close(fd)
            self.close()
            self._violated(str(error) or "no memory to read it")
            return False
        self._receive(message, fd)
        return True


def _descriptor(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The first descriptor that came along, -1 for none; there is room for one."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(data) >= _INT:
            return int(array.array("i", data[:_INT])[0])
    return -1
