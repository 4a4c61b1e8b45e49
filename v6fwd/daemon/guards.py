"""The filters of sockets made ahead, loaded once for each target."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable

from v6fwd.daemon.socket_filter import load
from v6fwd.errors import NotPermittedError, reason

MOST = 256
"""Filters that are kept. A socket that has one keeps it without us."""


class Guards:
    """Descriptors of loaded programs, by target; the one loaded first goes first."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, Hashable], tuple[Hashable, int]] = {}

    def of(self, netns: str, target: Hashable, made_of: Hashable, make: Callable[[], bytes]) -> int:
        """Return the descriptor of a target's filter, which is made anew if `made_of` changed.

        Raises NotPermittedError where it cannot be had.
        """
        key = netns, target
        known, fd = self._loaded.get(key, (None, -1))
        if fd >= 0 and known == made_of:
            return fd
        self._close([key])
        self._close(list(self._loaded)[: len(self._loaded) - MOST + 1])
        try:
            fd = load(make())
        except OSError as error:
            raise NotPermittedError(f"no filter for sockets: {reason(error)}") from None
        self._loaded[key] = made_of, fd
        return fd

    def drop(self, netns: str) -> None:
        """Forget the filters of a namespace."""
        self._close([key for key in self._loaded if key[0] == netns])

    def _close(self, keys: list[tuple[str, Hashable]]) -> None:
        for key in keys:
            _, fd = self._loaded.pop(key, (None, -1))
            if fd >= 0:
                os.close(fd)
