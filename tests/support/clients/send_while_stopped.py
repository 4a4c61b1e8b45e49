"""TCP client whose bytes arrive while the server is stopped: `send_while_stopped.py HOST PORT PID`.

Sends stdin and lets the server (its process id) go on when its kernel has all of it, so that it
finds it in one read however busy the machine is. Prints what comes back until that is quiet.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import sys
import termios
import time

PATIENCE = 20.0
"""Seconds for the server's kernel to take the bytes, and for the server to answer."""
QUIET = 0.3
"""Seconds without another byte that end an answer."""


def _unsent(sock: socket.socket) -> int:
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0"))[0])


def run(host: str, port: int, pid: int) -> None:
    """Exit with an error where the server's kernel does not take all."""
    data = sys.stdin.buffer.read()
    os.kill(pid, signal.SIGSTOP)
    try:
        sock = socket.create_connection((host, port), timeout=PATIENCE)
        sock.sendall(data)
        until = time.monotonic() + PATIENCE
        while _unsent(sock):
            if time.monotonic() > until:
                sys.exit(f"{_unsent(sock)} of {len(data)} bytes are not taken")
            time.sleep(0.01)
    finally:
        os.kill(pid, signal.SIGCONT)
    with sock, contextlib.suppress(ConnectionResetError, TimeoutError):
        while answer := sock.recv(65536):
            os.write(1, answer)
            sock.settimeout(QUIET)


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
