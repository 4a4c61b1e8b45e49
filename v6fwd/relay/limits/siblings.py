"""What processes that accept from the same sockets tell each other."""

from __future__ import annotations

from v6fwd.model.lean import Protocol


class Siblings(Protocol):
    """The processes that accept from the same sockets as this one."""

    def is_ahead(self, flows: int) -> bool:
        """Note how many flows this one has; gives whether another one has far less."""

    def all_full(self, full: bool) -> bool:
        """Note whether this one is full; gives whether all are, so that nobody will be served."""

    def all_paused(self, ports: int) -> int:
        """Note which ports this one has paused, as bits; gives those that no process serves."""


class Alone:
    """The Siblings of a process that has none."""

    def is_ahead(self, flows: int) -> bool:  # noqa: ARG002
        return False

    def all_full(self, full: bool) -> bool:
        return full

    def all_paused(self, ports: int) -> int:
        return ports
