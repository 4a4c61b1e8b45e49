"""Hears from the kernel when somebody changes an nftables table (NFNLGRP_NFTABLES)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

GATHER = 0.05
"""Seconds between two checks: a firewall's restart changes many things. The first is made at once,
as until then clients go where they must not."""
INTERVAL = 5.0
"""Seconds between checks where news cannot be had."""
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


class TableWatch:
    """Calls `check` soon after somebody has changed a table, on a running event loop.

    `always`: and every INTERVAL seconds, which else happens only where there are no news.
    """

    def __init__(self, table: str, check: Callable[[], None], *, always: bool = False) -> None:
        self._table = table
        self._check = check
        self._always = always
        self._watch: NftWatch | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._last_check = 0.0
        """When, in seconds of the loop's clock."""

    def start(self) -> None:
        """Watch from now on; again does no harm."""
        if self._watch is None and self._timer is None:
            try:
                self._watch = NftWatch(self._table)
            except OSError:
                self._always = True
            else:
                asyncio.get_running_loop().add_reader(self._watch, self._on_news)
            self._wait()

    def stop(self) -> None:
        """Watch no more."""
        self._cancel()
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch)
            self._watch.close()
            self._watch = None

    def _on_news(self) -> None:
        if self._watch is not None and self._watch.has_news():
            self._cancel()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._last_check + GATHER, self._check_now)

    def _check_now(self) -> None:
        self._last_check = asyncio.get_running_loop().time()
        self._cancel()
        self._wait()
        self._check()

    def _wait(self) -> None:
        if self._always:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._check_now)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
