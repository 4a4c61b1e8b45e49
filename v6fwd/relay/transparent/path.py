"""The path by which preserved clients reach a target, as TransparentTarget uses it."""

from __future__ import annotations

import errno
from collections.abc import Callable

from v6fwd.errors import RelayError
from v6fwd.log import Log
from v6fwd.model import Address, Endpoint
from v6fwd.model.lean import Any, Protocol
from v6fwd.relay.targets.addresses import SocketAddress


class Path(Protocol):
    """NetnsPath or RoutedPath. Addresses of UDP sessions are the path's or the direct target's."""

    def try_out(self) -> None:
        """Check that everything is there and allowed. Raises RelayError."""

    def why_not_preserved(self, source: Address) -> str | None:
        """Why the target cannot see a client's address; None where it can.

        Raises RelayError, and OSError where nobody listens.
        """

    def is_pseudo(self, source: Address) -> bool:
        """Whether a client that is preserved has a pseudo IPv4 address at the target."""

    def connect(self, address: SocketAddress | None, source: Address) -> int:
        """Start to connect as a client; gives the descriptor. Raises RelayError and OSError."""

    def connect_datagrams(self, source: Address) -> tuple[int, Any]:
        """A connected UDP socket, and where it leads to. Raises RelayError and OSError."""

    def has_moved(self, address: Any) -> bool:
        """Whether new UDP sessions are led elsewhere than to `address`."""

    def was_refused(self, address: Any) -> None:
        """Look for the target elsewhere: nobody took datagrams at `address`."""

    def client_left(self, address: Any, source: Address) -> None:
        """A UDP session to `address` has ended, or moved on."""

    def refresh(self, then: Callable[[], None]) -> bool:
        """Look for the target elsewhere and call `then`; False where that cannot help now."""

    def close(self) -> None:
        """Give back what the path held."""


def unusable(log: Log, endpoint: Endpoint, error: RelayError) -> OSError:
    """Log what is wrong; gives the error with which flows fail as if nobody listened."""
    text = f"cannot preserve clients of {endpoint}: {error}"
    log.limited(f"transparent {endpoint}", "transparent", text, burst=1)
    return OSError(errno.ECONNREFUSED, "")
