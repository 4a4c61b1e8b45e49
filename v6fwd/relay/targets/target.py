"""What flows and sessions need of the place where their forward leads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from v6fwd.errors import reason
from v6fwd.log import Log
from v6fwd.model import Address, Forward
from v6fwd.model.lean import TYPE_CHECKING, Any
from v6fwd.model.lean import Protocol as Interface
from v6fwd.relay.counters import Counters, count
from v6fwd.relay.targets.addresses import SocketAddress

if TYPE_CHECKING:
    from v6fwd.client_ip.proxy.write import HeaderWriter


class LiveTarget(Interface):
    """A target whose addresses come and go within seconds."""

    def others(self, then: Callable[[], None], since: float) -> bool:
        """Call `then` when `order` may give others, and soon in any case.

        False: a flow that has found none since `since`, in seconds, has waited for long enough."""

    def is_hop(self, address: SocketAddress) -> bool:
        """Whether another v6fwd is at an address, which wants a PROXY v2 header in any mode."""


class Target(Interface):
    """What flows and sessions need of the place where their forward leads."""

    @property
    def is_name(self) -> bool:
        """Whether there may be several addresses, and others tomorrow: `order` tells which."""

    @property
    def straight(self) -> bytes:
        """The struct sockaddr that `dial` would connect to, where that is all it does; or b""."""

    @property
    def live(self) -> LiveTarget | None:
        """The target itself, if its addresses may change while a flow connects."""

    on_found: Callable[[], None]
    """Called when the resolver has answered."""

    @property
    def found(self) -> Sequence[SocketAddress]:
        """All addresses that are known, refused or not."""

    def refuse(self, addresses: Sequence[SocketAddress]) -> None:
        """Lead to no such address, from now on and to the next call."""

    @property
    def holds(self) -> bool:
        """Whether flows need what `close` gives back."""

    def __len__(self) -> int:
        """How many addresses are known."""

    async def resolve(self) -> None:
        """Learn the addresses. Raises RelayError, naming the target."""

    def resolve_later(self, then: Callable[[], None]) -> None:
        """Learn the addresses, of a name in the background; then call `then`."""

    def refresh(self, then: Callable[[], None]) -> bool:
        """Look for other addresses and call `then` after it; False where that cannot help now."""

    def renew(self, then: Callable[[], None]) -> bool:
        """Ask the resolver if its answer is old. True: `then` is called, but soon in any case."""

    def order(self, source: Address | None = None) -> Sequence[SocketAddress]:
        """The addresses in the order in which one flow tries them; of the next flow it differs.

        `source` is the client, where it is known."""

    def failed(self, address: SocketAddress) -> None:
        """A flow could not connect to an address of several, or another one was faster."""

    def answered(self, address: SocketAddress) -> None:
        """A flow is connected to an address of several."""

    def dial(
        self,
        address: SocketAddress | None,
        source: Address | None = None,
        hop_limit: int = 0,
        *,
        speaks: bool = False,
    ) -> int:
        """Start to connect to an address of `order`, or the only one; gives the descriptor.

        `source` is the client; `hop_limit` of what is sent, 0: the system's, and that of clients
        whose address is preserved. `speaks`: something is written as soon as it is connected.
        Raises OSError, and ClientRefusedError where the target must see its address and cannot.
        """

    def connect_datagrams(self, source: Address) -> tuple[int, Any]:
        """A connected UDP socket for a client, and where it leads to. Raises as `dial` does."""

    def has_moved(self, address: Any) -> bool:
        """Whether new UDP sessions are led elsewhere than to `address`."""

    def was_refused(self, address: Any) -> None:
        """Look for another address: nobody took datagrams at this one."""

    def was_silent(self, address: Any) -> None:
        """Ask the resolver: a UDP session to a name has had no answer from this address."""

    def client_left(self, address: Any, source: Address) -> None:
        """A UDP session to `address` has ended, or moved on."""

    def shown_instead(self, source: Address) -> str:
        """PSEUDO or FALLBACK where mode `transparent` does not show the client's own address."""

    def header_writer(self, writer: HeaderWriter | None) -> HeaderWriter | None:
        """The writer to be used, where the forward's mode has `writer`."""

    def close(self) -> None:
        """Give back what the target held."""


def tell_failed(
    log: Log,
    counters: Counters,
    forward: Forward,
    client: Address | None,
    what: str,
    error: OSError,
) -> str:
    """Count a target that one cannot `what`, and say so in the log; gives the reason named."""
    why = reason(error)
    count(counters.dial_failures, why)
    log.limited(
        f"dial {forward.listen} {error.errno}",
        "dial-failed",
        f"cannot {what} {forward.target} for {forward.listen}: {why}{for_client(client)}",
        client=client or "",
        target=forward.target,
        listen=forward.listen,
        why=why,
    )
    return why


def for_client(client: Address | None) -> str:
    """Whose flow a line is about, for its end; "" where the client is gone and was not noted."""
    return f" (client {client})" if client is not None else ""
