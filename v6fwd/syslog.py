"""Logs to the host's syslog daemon, for processes whose stderr nobody reads.

Sends datagrams in the format of syslog(3) (RFC 3164, local form without host name) to /dev/log,
where journald listens too. Never blocks: a datagram that the daemon does not accept at once is
dropped and counted, and the count follows the next one that it accepts.
"""

from __future__ import annotations

import os
import socket
import time

from v6fwd.log import MAX_LINE, SEVERITIES, Log

DEV_LOG = "/dev/log"
_DAEMON = 3 << 3  # the facility, RFC 3164 section 4.1.1


class Syslog(Log):
    """Writes events to the datagram socket at `path`, under `name` and the process id.

    While no such socket exists, events are lost. One that appears later is used.
    """

    reader = "syslog"

    def __init__(self, name: str, path: str = DEV_LOG) -> None:
        super().__init__()
        self._tag = f"{name}[{os.getpid()}]"
        self._path = path
        # Not connected: a restarted daemon binds a new socket at the same path.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _line(self, level: str, event: str, text: str, fields: dict[str, object]) -> bytes:
        stamp = time.strftime("%b %e %H:%M:%S", time.localtime(self._now()))
        head = f"<{_DAEMON | SEVERITIES[level]}>{stamp} {self._tag}: ".encode()
        line = head + super()._line(level, event, text, fields).rstrip(b"\n")
        return line[:MAX_LINE]

    def _head(self, level: str) -> str:  # noqa: ARG002
        """The datagram's own head has time and level."""
        return ""

    def _put(self, line: bytes) -> bool:
        try:
            self._socket.sendto(line, socket.MSG_NOSIGNAL, self._path)
        except OSError:
            return False
        return True


def has_no_reader(fd: int = 2) -> bool:
    """Whether the descriptor is /dev/null, as in a process that dockerd started."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(os.devnull))
    except OSError:
        return True
