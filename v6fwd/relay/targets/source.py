"""Where targets are that move without a name to be resolved: containers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from v6fwd.model import Forward
from v6fwd.model.lean import Protocol


class TargetSource(Protocol):
    """Knows the addresses of containers. docker/ has one; whoever runs forwards passes it in."""

    async def begin(
        self, forwards: Callable[[], Iterable[Forward]], change: Callable[[Forward], None]
    ) -> None:
        """Learn where targets are; from then on `change` forwards whose target moves.

        `forwards` gives those that are open. Raises RelayError where that cannot be learnt now;
        it goes on all the same.
        """

    def resolved(self, forward: Forward) -> Forward:
        """The forward with the address where its target is now; without one while it has none."""

    def follow(self) -> None:
        """Look at the forwards again: there may be others."""

    def close(self) -> None:
        """Stop."""
