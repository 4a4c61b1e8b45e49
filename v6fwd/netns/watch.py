"""Detects new network namespaces from RTM_NEWLINK: a device is moved there, or one end of it is.

This is the first sign of a container on the host. Engine 20.10 moves the end of a veth pair
into it, 28 makes the pair with an end inside; both do so before its first process runs.
"""

from __future__ import annotations

import contextlib
import errno
import socket

from v6fwd.netns.netlink import RECEIVE
from v6fwd.netns.netlink_format import read_attributes, read_messages, read_number
from v6fwd.netns.search import NEW_LINK, OTHER_NAMESPACE, Links

_LINKS = 1  # RTMGRP_LINK, rtnetlink(7)
_DELETE_LINK = 17
_NEW_NAMESPACE = 45  # IFLA_NEW_NETNSID


class LinkWatch:
    """Listens in the namespace that the thread is in."""

    def __init__(self) -> None:
        """Raises OSError."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, 0)
        self._socket.bind((0, _LINKS))
        self._known: dict[int, int] = {}

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def fileno(self) -> int:
        """Readable when there is something to `read`."""
        return self._socket.fileno()

    def read(self) -> set[int]:
        """The namespaces, as ours numbers them, that have got a device since the last time."""
        numbers: set[int] = set()
        while True:
            try:
                data = self._socket.recv(RECEIVE)
            except BlockingIOError:
                return numbers
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                numbers |= all_numbers()  # more than the queue holds: some are lost
            else:
                found = (self._number(kind, body) for kind, _, body in read_messages(data))
                numbers.update(number for number in found if number is not None)

    def _number(self, kind: int, body: bytes) -> int | None:
        """Where a device is, or its other end, if that is news."""
        index, attributes = read_number(body[4:8]), read_attributes(body[16:])
        if kind == _DELETE_LINK:
            self._known.pop(index, None)
            moved = attributes.get(_NEW_NAMESPACE)
            return read_number(moved) if moved else None
        other = attributes.get(OTHER_NAMESPACE)
        if kind != NEW_LINK or other is None or self._known.get(index) == read_number(other):
            return None
        self._known[index] = read_number(other)
        return self._known[index]


def all_numbers() -> set[int]:
    """The namespaces, as ours numbers them, that devices lead to. Raises OSError."""
    with contextlib.closing(Links()) as links:
        return {link.other_namespace for link in links.links()}
