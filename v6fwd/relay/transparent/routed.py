"""Targets that are reached over the network: only what is routed back to us can be shown there."""

from __future__ import annotations

import errno
import socket
from typing import Any

from v6fwd.errors import RelayError
from v6fwd.model import Address
from v6fwd.relay.transparent.bind import Claim, connect_datagrams_from, connect_from
from v6fwd.relay.transparent.target import TransparentTarget


class AcrossTarget(TransparentTarget):
    """A target that is reached over the network: IPv6 clients come from pseudo addresses."""

    def _try_out(self) -> None:
        self._namespaces.speak_as_pseudo()
        self._namespaces.store(self._options.pseudo_store)

    def why_hidden(self, source: Address) -> str | None:
        """See TransparentTarget."""
        self._need_addresses()
        if len(source.packed) == 4:
            return "an IPv4 client, and the target is in no known network namespace"
        if not any(family == socket.AF_INET for family, _ in self._addresses):
            return "the target has no IPv4 address"
        return super().why_hidden(source)

    def dial(self, number: int, source: Address | None = None) -> int:
        """See Target."""
        assert source is not None
        if self._falls_back(source):
            return super().dial(number)
        family, sockaddr = self._addresses[number]
        if family != socket.AF_INET:
            raise OSError(errno.EAFNOSUPPORT, "")
        return connect_from(socket.SocketType, family, self._claim(source), sockaddr)

    def connect_datagrams(self, source: Address) -> tuple[int, Any]:
        """See Target."""
        if self._falls_back(source):
            return super().connect_datagrams(source)
        family, sockaddr = address = self.datagram_address
        claim = self._claim(source)
        return connect_datagrams_from(socket.SocketType, family, claim, sockaddr), address

    def _claim(self, source: Address) -> Claim:
        try:
            self._namespaces.speak_as_pseudo()
        except RelayError as error:
            raise self._out_of_order(error) from error
        return Claim(self._pseudo(source), source.port, is_foreign=False)
