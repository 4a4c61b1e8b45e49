"""Hears from the kernel when somebody changes an nftables table (NFNLGRP_NFTABLES)."""

from __future__ import annotations

import socket

_NETLINK_NETFILTER = 12
_GROUPS = 1 << (7 - 1)  # NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h
_READ = 1 << 16


class NftWatch:
    """A subscription in the network namespace of the thread. Raises OSError."""

    def __init__(self, table: str) -> None:
        # As the attribute NFTA_*_TABLE has it: a text that ends with a NUL.
        self._name = table.encode() + b"\0"
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)
        try:
            self._socket.bind((0, _GROUPS))
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Readable when there is something to hear."""
        return self._socket.fileno()

    def has_news(self) -> bool:
        """Return whether a message since the last time may be about the table."""
        found = False
        while True:
            try:
                found |= self._name in self._socket.recv(_READ)
            except BlockingIOError:
                return found
            except OSError:  # ENOBUFS: the kernel dropped some
                found = True

    def close(self) -> None:
        """Unsubscribe."""
        self._socket.close()
