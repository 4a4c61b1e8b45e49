"""asyncio and uvloop, imported without ssl and inspect: nothing here speaks TLS through them.

ssl costs 4.5 MB a process, most of it OpenSSL. asyncio does without it where Python was built
without it. uvloop imports it for the names of its classes alone. inspect costs 0.9 MB; asyncio
asks it about callbacks that may be coroutines, in debug mode and where it handles signals.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from v6fwd.model.lean import Any
from v6fwd.relay.life.later import later


class _NoTls(ModuleType):
    """Has a number or a class for every name."""

    def __getattr__(self, name: str) -> Any:
        return 0 if name.isupper() else type(name, (Exception,), {})


@contextmanager
def _ssl_is(module: ModuleType | None) -> Iterator[None]:
    """None: it cannot be imported. Whoever has imported it before keeps it."""
    if "ssl" in sys.modules:
        yield
        return
    sys.modules["ssl"] = module  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["ssl"]


with _ssl_is(None), later("inspect"):
    import asyncio as asyncio  # for others to import from here


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop of uvloop: for one process, which does not fork."""
    with _ssl_is(_NoTls("ssl")):
        import uvloop

    return uvloop.new_event_loop()
