"""Hears from the kernel when somebody changes an nftables table (NFNLGRP_NFTABLES)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Collection, Container, Iterator

GATHER = 0.05
"""Seconds between two checks: a firewall's restart changes many things. The first is made at once,
as until then clients go where they must not."""
INTERVAL = 5.0
"""Seconds between checks where news cannot be had."""
_NETLINK_NETFILTER = 12
_GROUPS = 1 << (7 - 1)  # NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h
_READ = 1 << 16
_HEADER = struct.Struct("=IHHII")  # nlmsghdr, netlink(7)
REMOVALS = frozenset({2, 5, 8, 11, 14})
"""NFT_MSG_DELTABLE, _DELCHAIN, _DELRULE, _DELSET, _DELSETELEM (linux/netfilter/nf_tables.h)."""


class NftWatch:
    """A subscription in the network namespace of the thread. Raises OSError."""

    def __init__(self, names: Collection[str], types: Container[int] | None) -> None:
        # As attributes have them: texts that end with a NUL.
        self._names = [name.encode() + b"\0" for name in names]
        self._types = types
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
        """Return whether a message since the last time may be about one of the names."""
        found = False
        while True:
            try:
                found |= any(map(self._is_news, _messages(self._socket.recv(_READ))))
            except BlockingIOError:
                return found
            except OSError:  # ENOBUFS: the kernel dropped some
                found = True

    def _is_news(self, message: bytes) -> bool:
        _, kind, *_ = _HEADER.unpack_from(message)
        wanted = self._types is None or (kind & 0xFF) in self._types
        return wanted and any(name in message for name in self._names)

    def close(self) -> None:
        """Unsubscribe."""
        self._socket.close()


def _messages(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + _HEADER.size <= len(data):
        length = max(_HEADER.unpack_from(data, at)[0], _HEADER.size)
        yield data[at : at + length]
        at += length + 3 & ~3


class TableWatch:
    """Calls `check` soon after somebody has changed a table or chain, on a running event loop.

    `types`: only for messages of these types. `always`: and every INTERVAL seconds, which else
    happens only where there are no news.
    """

    def __init__(
        self,
        names: Collection[str],
        check: Callable[[], None],
        *,
        types: Container[int] | None = None,
        always: bool = False,
    ) -> None:
        self._names = names
        self._types = types
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
                self._watch = NftWatch(self._names, self._types)
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
