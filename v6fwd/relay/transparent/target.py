"""Targets that see their client at their socket: the client's own address, or a pseudo IPv4.

`InsideTarget` (inside.py) speaks from inside the target's network namespace, so all addresses
are possible and nothing is on the wire. `AcrossTarget` (across.py) speaks over the network from
our own namespace: there only an address that is routed back to us will do, which is a pseudo
one. A client that cannot be shown, because of what its address is or where the target listens,
falls to the forward's fallback, which never shows a wrong address at its socket, only the
bridge's or none.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from v6fwd.client_ip.presentable import SourceFilter
from v6fwd.client_ip.proxy.write import HeaderWriter, write_v2, write_v2_dgram
from v6fwd.errors import ClientRefusedError, NotPermittedError, RelayError
from v6fwd.model import (
    Address,
    Endpoint,
    Protocol,
    Transparent,
    TransparentFallback,
    ip_text,
)
from v6fwd.relay.target import Target
from v6fwd.relay.transparent.namespaces import Namespaces


class TransparentTarget(Target):
    """What both kinds have in common: who can be shown, and what becomes of the others."""

    holds = True

    def __init__(self, endpoint: Endpoint, options: Transparent, namespaces: Namespaces) -> None:
        super().__init__(endpoint, namespaces.reactor)
        self._options = options
        self._namespaces = namespaces
        self._hidden = SourceFilter()
        self._unusable = ""

    async def resolve(self) -> None:
        """See Target. Raises RelayError where clients cannot be shown and must be."""
        await super().resolve()
        self._try_out_unless_fallback()

    def resolve_later(self, then: Callable[[], None]) -> None:
        """See Target. What does not work is told, and tried again when a client comes."""

        def resolved() -> None:
            try:
                self._try_out_unless_fallback()
            except RelayError as error:
                self._out_of_order(error)
            then()

        super().resolve_later(resolved)

    def _try_out_unless_fallback(self) -> None:
        try:
            self._try_out()
        except RelayError as error:
            self._give_up_unless_fallback(error)

    def _try_out(self) -> None:
        """Whether all is there and allowed. Raises RelayError."""

    def why_hidden(self, source: Address) -> str | None:
        """Why a client cannot be shown; None where it can. Raises OSError: nobody is there."""
        return self._unusable or self._hidden.why(source.packed)

    def header_writer(self, writer: HeaderWriter | None) -> HeaderWriter | None:  # noqa: ARG002
        """See Target: the header is for those who are not shown."""
        if self._options.fallback is not TransparentFallback.PROXY_V2:
            return None
        write = write_v2 if self.endpoint.protocol is Protocol.TCP else write_v2_dgram

        def write_for_hidden(source: Address, destination: Address) -> bytes:
            try:
                hidden = self.why_hidden(source)
            except OSError:
                hidden = None
            return write(source, destination) if hidden else b""

        return write_for_hidden

    def _falls_back(self, source: Address) -> bool:
        """Whether the fallback serves a client. Raises ClientRefusedError, and OSError."""
        why = self.why_hidden(source)
        if why is None:
            return False
        if self._options.fallback is TransparentFallback.REFUSE:
            raise ClientRefusedError(
                f"{why}; --transparent-fallback none or proxy-v2 would serve it"
            )
        return True

    def _give_up_unless_fallback(self, error: RelayError) -> None:
        """Without a fallback, what does not work ends the start. With one, all clients get it
        where a right is missing; what is merely not there yet is looked for again."""
        fallback = self._options.fallback
        if fallback is TransparentFallback.REFUSE:
            raise error
        if isinstance(error, NotPermittedError):
            self._unusable = str(error)
        self._namespaces.log.limited(
            f"fallback {self.endpoint}",
            "fallback",
            f"{self.endpoint} cannot see its clients, who fall back to {fallback}: {error}",
            burst=1,
            target=self.endpoint,
            fallback=fallback,
        )

    def _pseudo(self, source: Address) -> str:
        try:
            store = self._namespaces.store(self._options.pseudo_store)
            is_proven = self.endpoint.protocol is Protocol.TCP
            bits = self._options.pseudo_bits
            return ip_text(store.address_of(source.packed, bits, is_proven=is_proven))
        except RelayError as error:
            raise self._out_of_order(error) from error

    def _out_of_order(self, error: RelayError) -> OSError:
        """Say what is wrong; the flow fails as if nobody listened."""
        text = f"cannot show clients to {self.endpoint}: {error}"
        self._namespaces.log.limited(f"transparent {self.endpoint}", "transparent", text, burst=1)
        return OSError(errno.ECONNREFUSED, "")
