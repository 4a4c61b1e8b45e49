"""Opens TCP ports in another network namespace, then becomes a program that has no rights.

    door.py NAMESPACE PORT[,PORT...] COMMAND...

COMMAND gets the listening sockets as systemd would pass them (LISTEN_FDS), as user 65532, in the
network namespace that it was started in. It needs CAP_SYS_ADMIN for setns(2), CAP_SETUID and
CAP_SETGID; for ports below 1024 CAP_NET_BIND_SERVICE, too.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import sys

CLONE_NEWNET = 0x40000000
FIRST = 3  # sd_listen_fds(3)
USER = 65532


def enter(path: str) -> None:
    """Enter a network namespace, whose file may also be of a read-only mount. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDONLY)
    try:
        if libc.setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    finally:
        os.close(fd)


def listen(port: int) -> socket.socket:
    """Listen on all addresses of both families. Raises OSError."""
    sock = socket.socket(socket.AF_INET6)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", port))
    sock.listen(4096)
    return sock


def main(namespace: str, ports: str, *command: str) -> None:
    """Do it. Raises OSError."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    enter(namespace)
    sockets = [listen(int(port)) for port in ports.split(",")]
    enter(f"/proc/self/fd/{home}")
    os.close(home)
    # Copies first: a socket may have the number that another one is to have.
    copies = [fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, 100) for sock in sockets]
    for at, fd in enumerate(copies):
        os.dup2(fd, FIRST + at)
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    environ = os.environ | {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(copies))}
    os.execvpe(command[0], command, environ)


if __name__ == "__main__":
    main(*sys.argv[1:])
