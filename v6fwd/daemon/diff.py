"""Compares two lists of forwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from v6fwd.model import Endpoint, Forward


@dataclass(frozen=True, slots=True)
class ForwardDiff:
    """The changes between two lists. A forward is identified by its listening endpoint."""

    new: tuple[Forward, ...]
    changed: tuple[Forward, ...]
    gone: tuple[Endpoint, ...]

    @classmethod
    def between(cls, old: Mapping[Endpoint, Forward], wanted: Iterable[Forward]) -> ForwardDiff:
        """Return what turns `old` into `wanted`."""
        forwards = {forward.listen: forward for forward in wanted}
        return cls(
            tuple(each for listen, each in forwards.items() if listen not in old),
            tuple(each for listen, each in forwards.items() if old.get(listen, each) != each),
            tuple(listen for listen in old if listen not in forwards),
        )

    def __str__(self) -> str:
        return f"{len(self.new)} new, {len(self.changed)} changed, {len(self.gone)} gone"
