"""The log of a process that has nobody to read its stderr: datagrams to the host's syslog daemon.

As syslog(3) writes them (RFC 3164, the local form without a host name), to /dev/log, where the
journal listens, too. Never waits: a datagram that the daemon does not take at once is dropped and
counted, and the next one that it takes is followed by the count.
"""

from __future__ import annotations

import os
import socket
import time

from v6fwd.log import MAX_LINE, Log

DEV_LOG = "/dev/log"
_DAEMON = 3 << 3  # the facility, RFC 3164 section 4.1.1
_SEVERITIES = {"error": 3, "warning": 4, "info": 6}


class Syslog(Log):
    """Writes events to the datagram socket at `path`, under `name` and the process id.

    Where no such socket is, events are lost, and nothing else happens; one that comes later is
    found.
    """

    reader = "syslog"

    def __init__(self, name: str, path: str = DEV_LOG) -> None:
        super().__init__()
        self._tag = f"{name}[{os.getpid()}]"
        self._path = path
        # Not connected: a daemon that is restarted makes a socket of its own at the same path.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def close(self) -> None:
        """Write nothing more."""
        self._socket.close()

    def _line(self, level: str, event: str, text: str, fields: dict[str, object]) -> bytes:
        stamp = time.strftime("%b %e %H:%M:%S", time.localtime(self._now()))
        head = f"<{_DAEMON | _SEVERITIES[level]}>{stamp} {self._tag}: ".encode()
        line = head + super()._line(level, event, text, fields).rstrip(b"\n")
        return line[:MAX_LINE]

    def _put(self, line: bytes) -> bool:
        try:
            self._socket.sendto(line, socket.MSG_NOSIGNAL, self._path)
        except OSError:
            return False
        return True


def has_no_reader(fd: int = 2) -> bool:
    """Whether what is written to the descriptor goes to /dev/null: so dockerd starts a proxy."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(os.devnull))
    except OSError:
        return True
