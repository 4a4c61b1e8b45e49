"""The log lines that say that all listeners accept: how many, what listens, where it leads."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from v6fwd.log import Log
from v6fwd.model import Forward

SHOWN = 10
"""Forwards that have a line each; `v6fwd status` has all."""


def ready_text(count: int) -> str:
    """The line that programs wait for; always plural, so that one pattern finds it."""
    return f"ready: {count} forwards"


def tell_ready(log: Log, text: str, forwards: Collection[Forward]) -> None:
    """Log `text`, then a line for each forward up to SHOWN."""
    log.info("ready", text)
    for forward in islice(forwards, SHOWN):
        log.info(
            "forward",
            f"{forward}, client-ip {forward.client_ip}",
            listen=forward.listen,
            target=forward.target,
            client_ip=forward.client_ip,
        )
    if len(forwards) > SHOWN:
        log.info("forward", f"and {len(forwards) - SHOWN} more")
