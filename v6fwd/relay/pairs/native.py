"""The native epoll where it has been built, and what it tells."""

from __future__ import annotations

import os

from v6fwd.model.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from v6fwd.relay.pairs._epoll import Epoll

try:
    from v6fwd.relay.pairs import _epoll as _module
except ImportError:  # no compiler
    _module = None  # type: ignore[assignment]

PURE = "V6FWD_PURE_EPOLL"
"""In the environment: do without the native module, for tests and measurements."""

PAIRS = -1
"""The descriptor whose events tell of pairs: `pair << KIND_BITS | kind`."""


def is_native() -> bool:
    """Whether there is one to be used."""
    return _module is not None and not os.environ.get(PURE)


def native_epoll() -> Epoll | None:
    """Open one; None where there is no such module. Raises OSError."""
    return _module.Epoll() if is_native() else None
