"""Targets that see their client at their socket: the client's own address, or a pseudo IPv4.

A client whose address cannot be preserved, because of what it is or where the target listens,
gets the forward's fallback. That never puts a wrong address at the target's socket, only the
bridge's or none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from v6fwd.client_ip.proxy.write import HeaderWriter, write_v2, write_v2_dgram
from v6fwd.errors import ClientRefusedError, NotPermittedError, RelayError
from v6fwd.log import Log
from v6fwd.model import Address, Protocol, TransparentFallback
from v6fwd.model.lean import Any
from v6fwd.relay.counters import FALLBACK, PSEUDO
from v6fwd.relay.targets.addresses import SocketAddress
from v6fwd.relay.targets.direct import DirectTarget
from v6fwd.relay.transparent.path import Path, unusable


class TransparentTarget:
    """A direct target for clients that fall back, and a path for those that are preserved.

    Large because it has every method of Target and asks the one or the other for each.
    """

    holds = True
    straight = b""
    live = None

    def __init__(
        self, direct: DirectTarget, path: Path, fallback: TransparentFallback, log: Log
    ) -> None:
        self.endpoint = direct.endpoint
        self._direct = direct
        self._path = path
        self._fallback = fallback
        self._log = log
        self._not_permitted = ""  # why, of all clients

    def __len__(self) -> int:
        return len(self._direct)

    async def resolve(self) -> None:
        """Learn the addresses. Raises RelayError where clients must be preserved and cannot be."""
        await self._direct.resolve()
        self._try_out()

    def resolve_later(self, then: Callable[[], None]) -> None:
        """What does not work is logged, and tried again when a client comes."""

        def resolved() -> None:
            try:
                self._try_out()
            except RelayError as error:
                self._unusable(error)
            then()

        self._direct.resolve_later(resolved)

    @property
    def is_name(self) -> bool:
        return self._direct.is_name

    @property
    def on_found(self) -> Callable[[], None]:
        return self._direct.on_found

    @on_found.setter
    def on_found(self, call: Callable[[], None]) -> None:
        self._direct.on_found = call

    @property
    def found(self) -> Sequence[SocketAddress]:
        return self._direct.found

    def refuse(self, addresses: Sequence[SocketAddress]) -> None:
        self._direct.refuse(addresses)

    def renew(self, then: Callable[[], None]) -> bool:
        return self._direct.renew(then)

    def order(self, source: Address | None = None) -> Sequence[SocketAddress]:
        return self._direct.order(source)

    def failed(self, address: SocketAddress) -> None:
        self._direct.failed(address)

    def answered(self, address: SocketAddress) -> None:
        self._direct.answered(address)

    def dial(
        self,
        address: SocketAddress | None,
        source: Address | None = None,
        hop_limit: int = 0,
        *,
        speaks: bool = False,
    ) -> int:
        assert source is not None
        try:
            if self._falls_back(source):
                return self._direct.dial(address, source, hop_limit, speaks=speaks)
            return self._path.connect(address, source)
        except RelayError as error:
            raise self._unusable(error) from error

    def connect_datagrams(self, source: Address) -> tuple[int, Any]:
        try:
            if self._falls_back(source):
                return self._direct.connect_datagrams(source)
            return self._path.connect_datagrams(source)
        except RelayError as error:
            raise self._unusable(error) from error

    def has_moved(self, address: Any) -> bool:
        return self._path.has_moved(address)

    def was_refused(self, address: Any) -> None:
        self._path.was_refused(address)

    def was_silent(self, address: Any) -> None:
        self._direct.was_silent(address)

    def client_left(self, address: Any, source: Address) -> None:
        self._path.client_left(address, source)

    def refresh(self, then: Callable[[], None]) -> bool:
        return self._path.refresh(then)

    def close(self) -> None:
        self._path.close()

    def header_writer(self, writer: HeaderWriter | None) -> HeaderWriter | None:  # noqa: ARG002
        """The header is for clients that are not preserved."""
        if self._fallback is not TransparentFallback.PROXY_V2:
            return None
        write = write_v2 if self.endpoint.protocol is Protocol.TCP else write_v2_dgram

        def write_unless_preserved(source: Address, destination: Address) -> bytes:
            try:
                why = self._why_not_preserved(source)
            except RelayError as error:
                self._unusable(error)
                why = None
            except OSError:
                why = None
            return write(source, destination) if why else b""

        return write_unless_preserved

    # -- who is preserved --

    def shown_instead(self, source: Address) -> str:
        try:
            if self._why_not_preserved(source) is not None:
                return FALLBACK
        except (RelayError, OSError):  # it has gone since the flow connected
            return ""
        return PSEUDO if self._path.is_pseudo(source) else ""

    def _why_not_preserved(self, source: Address) -> str | None:
        return self._not_permitted or self._path.why_not_preserved(source)

    def _falls_back(self, source: Address) -> bool:
        """Whether the fallback serves a client.

        Raises ClientRefusedError; RelayError and OSError where nobody is there.
        """
        why = self._why_not_preserved(source)
        if why is None:
            return False
        if self._fallback is TransparentFallback.REFUSE:
            raise ClientRefusedError(
                f"{why}; --transparent-fallback none or proxy-v2 would serve it"
            )
        return True

    def _try_out(self) -> None:
        """Without a fallback, what does not work ends the start: raises RelayError.

        With one, all clients get it where a right is missing; what is merely not there yet is
        looked for again.
        """
        try:
            self._path.try_out()
        except RelayError as error:
            if self._fallback is TransparentFallback.REFUSE:
                raise
            if isinstance(error, NotPermittedError):
                self._not_permitted = str(error)
            self._tell_fallback(error)

    def _tell_fallback(self, error: RelayError) -> None:
        self._log.limited(
            f"fallback {self.endpoint}",
            "fallback",
            f"{self.endpoint} cannot see its clients, who fall back to {self._fallback}: {error}",
            burst=1,
            target=self.endpoint,
            fallback=self._fallback,
        )

    def _unusable(self, error: RelayError) -> OSError:
        return unusable(self._log, self.endpoint, error)
