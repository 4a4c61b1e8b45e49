"""The end of a relay: flows may finish for a while, then they are reset."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from v6fwd.log import Log, attempt, counted
from v6fwd.model.lean import TYPE_CHECKING
from v6fwd.relay.ends import End
from v6fwd.relay.flows import Flows
from v6fwd.relay.ports import Port

if TYPE_CHECKING:
    import asyncio

UDP_GRACE = 0.5
"""Seconds at most for answers on their way at a stop: datagrams have no end to wait for."""


class Drain:
    """Waits for TCP flows and for UDP sessions, each for its time; calls `ended` once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        flows: Flows,
        udp_ports: Sequence[Port],
        log: Log,
        ended: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._flows = flows
        self._udp_ports = udp_ports
        self._log = log
        self._ended = ended
        self._due: dict[Callable[[], None], asyncio.TimerHandle] = {}

    def begin(self, grace: float) -> None:
        """Reset what has not finished in `grace` seconds. Nothing new may begin any more."""
        self._flows.retire_all()
        if self._flows:
            self._log.info(
                "draining",
                f"draining: {counted(len(self._flows), 'flow')}, {grace:g} s at most",
                flows=len(self._flows),
            )
            self._flows.on_left = self._flow_left
            self._wait(grace, self._cut_flows)
        if any(port.sessions() for port in self._udp_ports):
            self._wait(min(grace, UDP_GRACE), self._end_sessions)
        else:
            self._end_sessions()
        if not self._due:
            self._ended()

    def hurry(self) -> None:
        """Wait no longer."""
        for then in list(self._due):
            self._finish(then)

    def close(self) -> None:
        """Cancel the timers."""
        self._flows.on_left = None
        for timer in self._due.values():
            timer.cancel()

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._due[then] = self._loop.call_later(seconds, self._finish, then)

    def _finish(self, then: Callable[[], None]) -> None:
        self._due.pop(then).cancel()
        then()
        if not self._due:
            self._ended()

    def _flow_left(self) -> None:
        if not self._flows:
            self._finish(self._cut_flows)

    def _cut_flows(self) -> None:
        self._flows.on_left = None
        cut = self._flows.abort_all(End.CUT)
        if cut:
            self._log.warning(
                "cut", f"reset {counted(cut, 'flow')} that had not finished", flows=cut
            )

    def _end_sessions(self) -> None:
        for port in self._udp_ports:
            attempt(port.end, End.STOPPED)
