"""Keeps new clients waiting while an old answer of the resolver is renewed."""

from __future__ import annotations

from collections.abc import Callable

from v6fwd.relay.targets.target import Target


class Renewal:
    """One question at a time, however many clients come."""

    def __init__(self, done: Callable[[], None]) -> None:
        """`done` is called when clients need wait no more, for whatever reason."""
        self._done = done
        self._is_asking = False

    def holds(self, target: Target) -> bool:
        """Whether a new client has to wait."""
        if not self._is_asking and target.is_name:
            self._is_asking = target.renew(self._answered)
        return self._is_asking

    def _answered(self) -> None:
        """The resolver has answered, or has been waited for long enough."""
        self._is_asking = False
        self._done()
