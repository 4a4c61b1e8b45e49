"""The shim's standalone mode: docker-proxy's work for one port, where no daemon of v6fwd runs.

The contract with dockerd (moby, cmd/docker-proxy and libnetwork's portmapper): descriptor 3 is a
pipe for the status, `0\\n` or `1\\n` and the error, in one write(2), as dockerd reads it with one
read(2); descriptor 4 is the listening socket, with -use-listen-fd. SIGINT or SIGTERM end it with
exit status 0, and like docker-proxy's, its connections end with it: the container is gone.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence

from v6fwd.docker.shim.flags import ProxyFlags, parse_flags
from v6fwd.docker.shim.listening import LISTEN_FD, from_descriptor, own
from v6fwd.errors import RelayError
from v6fwd.log import Log, keep_standard_descriptors
from v6fwd.model import Endpoint, InputError, Limits
from v6fwd.syslog import Syslog, has_no_reader

NAME = "v6fwd-docker-proxy"
STATUS_FD = 3
LIMITS = Limits(drain_timeout=0, interrupt_timeout=0)
"""dockerd waits for the exit without a limit, and `docker stop` with it."""


class Status:
    """The pipe on which dockerd waits for the status; nobody need be at its other end."""

    def __init__(self, fd: int = STATUS_FD) -> None:
        self._fd = fd
        with contextlib.suppress(OSError):
            os.set_inheritable(fd, False)

    def listening(self) -> None:
        """Tell that the port is open."""
        self._tell("0\n")

    def failed(self, error: str) -> None:
        """Tell that it cannot be."""
        self._tell(f"1\n{error}")

    def _tell(self, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self._fd, text.encode())
            os.close(self._fd)


def main(words: Sequence[str]) -> int:
    """Relay as docker-proxy does, with its flags; gives the exit status."""
    status = Status()
    keep_standard_descriptors()
    log = Syslog(NAME) if has_no_reader() else Log()
    try:
        flags = parse_flags(words)
        log.info(
            "alone",
            f"{flags.forward}: no daemon serves it; mode none, its server sees no client addresses",
        )
        _relay(flags, status, log)
    except (InputError, RelayError, OSError) as error:
        status.failed(str(error))
        log.error("failed", str(error))
        return 1
    return 0


def _relay(flags: ProxyFlags, status: Status, log: Log) -> None:
    """Raises RelayError."""
    from v6fwd.relay.life.alone import Alone  # not before the flags are known to be right

    listen = _inherited if flags.use_listen_fd else own
    relay = Alone([flags.forward], LIMITS, log, listen=listen)
    try:
        relay.run(status.listening)
    finally:
        relay.close()


def _inherited(endpoint: Endpoint) -> socket.socket:
    return from_descriptor(LISTEN_FD, endpoint)
