"""What the native module does."""

from __future__ import annotations

from v6fwd.model.lean import Any, Protocol


class Ring(Protocol):
    """What `_ring.Ring` does; see its methods' docstrings."""

    @property
    def active(self) -> int:
        """Pairs that are not given back yet."""

    def fileno(self) -> int:
        """The descriptor to be watched while the ring rests."""

    def wait(self, seconds: float, /) -> list[int] | None:
        """Submit, wait, and give what happened: `pair << KIND_BITS | kind`; None: nothing at all.

        Raises MemoryError.
        """

    def rest(self) -> bool:
        """Submit, and let the descriptor tell of what comes; True: something has come already."""

    def poll(self, fd: int, /) -> None:
        """Tell once, as READABLE, that a descriptor can be read."""

    def connect(
        self, owner: object, client: int, target: int, first: bytes, header_size: int, /
    ) -> int:
        """See PairPump."""

    def dial(
        self, owner: object, client: int, address: bytes, header: bytes, hop_limit: int, /
    ) -> tuple[int, int, bool]:
        """See PairPump."""

    def join(self, owner: object, client: int, target: int, up: int, down: int, /) -> int:
        """See PairPump."""

    def owner(self, pair: int, /) -> Any:
        """Who hears of a pair; None if it has been given up."""

    def is_connected(self, pair: int, /) -> bool:
        """See PairPump."""

    def stop(self, pair: int, /) -> None:
        """See PairPump."""

    def sweep(self, most: int, /) -> None:
        """Stop the pairs that were half-closed at the last sweep, too, and `most` of the others."""

    def load(self) -> float:
        """What a wait has brought since the last call: reads, and four for the begin of a flow."""

    def take(self, pair: int, /) -> tuple[int, int, int, bytes, bytes, bytes, int, int]:
        """Give the fields of `Stopped`. Raises ValueError if the pair has not stopped."""

    def reset(self, pair: int, /) -> None:
        """See PairPump."""

    def drop(self, pair: int, /) -> None:
        """See PairPump."""

    def moved(self, pair: int, /) -> tuple[int, int]:
        """See PairPump."""

    def is_half_closed(self, pair: int, /) -> bool:
        """See PairPump."""

    def close(self) -> None:
        """Close every pair, and the ring."""
