"""The log line of a UDP session that has ended, with --log-flows."""

from __future__ import annotations

from v6fwd.log import Log
from v6fwd.model import Address, Forward
from v6fwd.model.lean import Protocol
from v6fwd.relay.ends import End


class Ended(Protocol):
    """What the line says of a session."""

    client: Address
    forward: Forward
    up_count: int
    up_bytes: int
    down_count: int
    down_bytes: int

    def seconds(self) -> float:
        """How long it lived, in seconds."""


def record(log: Log, session: Ended, end: End) -> None:
    """Log a session that has ended."""
    forward, seconds = session.forward, session.seconds()
    log.info(
        "flow",
        f"flow {session.client} -> {forward.listen} -> {forward.target} {forward.client_ip}:"
        f" {session.up_bytes} bytes in {session.up_count} datagrams up,"
        f" {session.down_bytes} in {session.down_count} down, {seconds:.3f} s, {end.text}",
        client=session.client,
        listen=forward.listen,
        target=forward.target,
        client_ip=forward.client_ip,
        bytes_up=session.up_bytes,
        datagrams_up=session.up_count,
        bytes_down=session.down_bytes,
        datagrams_down=session.down_count,
        seconds=round(seconds, 6),
        end=end.text,
    )
