"""Gathers what the page shows, and sends it to those who watch: server-sent events (WHATWG HTML).

Bounded in everything: WATCHERS at once, ROWS forwards and CLIENTS clients in an event, BACKLOG
bytes that a watcher may leave unread. One encoding serves all watchers. While nobody watches, the
counters are asked for once in UNWATCHED turns, for the history alone.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from v6fwd.daemon.view.clients import top
from v6fwd.daemon.view.figures import Rates
from v6fwd.daemon.view.history import EVERY, History
from v6fwd.daemon.view.pseudo import PseudoAddresses
from v6fwd.daemon.view.recent import Recent
from v6fwd.daemon.view.rows import HELD, Row, Table, busiest, summed
from v6fwd.log import Log, in_background
from v6fwd.model import IPNetwork
from v6fwd.model.banning import network_text

WATCHERS = 8
ROWS = 100
CLIENTS = 25
BANS = 100
BACKLOG = 256 << 10
"""Bytes, some seconds of events: who leaves more unread is dropped."""
SEND_BUFFER = 64 << 10
"""Bytes that the kernel may hold besides. Its own limit would be 4 MB for each watcher."""
WATCHED = 1.0
"""Seconds between two events while somebody watches."""
UNWATCHED = 5
"""Turns of WATCHED seconds between two questions while nobody does."""
SHARE = 20
"""Clients come from a list of all flows. To make it may take a SHAREth of the time."""

Watcher = asyncio.StreamWriter


@dataclass(frozen=True, slots=True)
class Asked:
    """What the feed asks."""

    status: Callable[[], Awaitable[Mapping[str, Any]]]
    flows: Callable[[], Awaitable[list[dict[str, Any]]]]
    stores: Callable[[], Iterable[str]]
    """Paths of the stores of pseudo IPv4 addresses that are in use."""
    bans: Callable[[], Iterable[tuple[IPNetwork, int]]] = tuple
    """Who is banned, and until when, in seconds since 1970; 0: no end."""


class Feed:
    """The events of the page, each by its name in `latest`."""

    def __init__(
        self,
        daemon: Asked,
        recent: Recent,
        log: Log,
        *,
        clock: Callable[[], float] = time.monotonic,
        token: str = "",
    ) -> None:
        """`token`: with which the page may ask for changes; "": it may not."""
        self._token = token
        self.latest: dict[str, bytes] = {}
        """The last event of each kind, for who begins to watch; empty while nobody does."""
        self._daemon = daemon
        self._recent = recent
        self._log = log
        self._clock = clock
        self._table = Table()
        self._history = History(clock())
        self._pseudo = PseudoAddresses()
        self._watchers: set[Watcher] = set()
        self._noted = 0
        self._clients_due = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Gather from now on."""
        self._task = in_background(self._run(), "status page")

    def close(self) -> None:
        """Stop. Browsers that watch connect again, to a successor."""
        if self._task is not None:
            self._task.cancel()
        for watcher in [*self._watchers]:
            self._drop(watcher)

    # -- those who watch --

    @property
    def has_room(self) -> bool:
        """Whether one more may watch."""
        return len(self._watchers) < WATCHERS

    async def follow(self, watcher: Watcher) -> None:
        """Send events until the connection ends. Raises OSError where it broke."""
        self._watchers.add(watcher)
        try:
            sock = watcher.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            if self._token:
                watcher.write(_event("admin", {"token": self._token}))
            for event in self.latest.values():
                watcher.write(event)
            await watcher.wait_closed()
        finally:
            self._forget(watcher)

    def _drop(self, watcher: Watcher) -> None:
        self._forget(watcher)
        watcher.transport.abort()

    def _forget(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)
        if not self._watchers:
            self.latest.clear()

    def _publish(self, name: str, what: Any) -> None:
        self.latest[name] = event = _event(name, what)
        for watcher in [*self._watchers]:
            if watcher.transport.is_closing():  # uvloop raises RuntimeError at a write
                self._forget(watcher)
            elif watcher.transport.get_write_buffer_size() > BACKLOG:
                self._drop(watcher)
            else:
                watcher.write(event)

    # -- what they see --

    async def _run(self) -> None:
        turn = 0
        while True:
            if self._watchers or turn % UNWATCHED == 0:
                try:
                    await self.refresh()
                except Exception as error:
                    text = f"internal error on the status page: {error!r}"
                    self._log.limited("status-page", "defect", text)
            turn += 1
            await asyncio.sleep(WATCHED)

    async def refresh(self) -> None:
        """Gather once, and send what is new."""
        status = await self._daemon.status()
        at = self._clock()
        rows = self._table.rows(status, at)
        rates = summed(rows)
        is_sample = self._history.note(rates, sum(row.live for row in rows), at)
        if not self._watchers:
            return
        self._publish("status", _shown(status, rows, rates))
        if is_sample or "history" not in self.latest:
            self._publish("history", self._samples())
        if self._recent.noted != self._noted or "log" not in self.latest:
            self._noted = self._recent.noted
            self._show_bans()  # they change with a line in the log, or by time
            self._publish("log", [asdict(line) for line in self._recent.lines])
        if at >= self._clients_due or "clients" not in self.latest:
            await self._show_clients(at)

    def _show_bans(self) -> None:
        """The first BANS of them, and how many more there are."""
        bans = iter(self._daemon.bans())
        shown = [
            {"network": network_text(network), "until": until}
            for network, until in islice(bans, BANS)
        ]
        self._publish("bans", {"rows": shown, "more": next(bans, None) is not None})

    def _samples(self) -> dict[str, Any]:
        """The samples as a list for each chart."""
        samples = self._history.samples
        kinds = ("flows", "up", "down", "errors")
        lists = {kind: [round(getattr(s.rates, kind), 2) for s in samples] for kind in kinds}
        return {"every": EVERY, **lists, "live": [sample.live for sample in samples]}

    async def _show_clients(self, began: float) -> None:
        flows = await self._daemon.flows()
        stores = [*self._daemon.stores()]
        shown = {}
        for by in ("net", "client"):
            groups, number = top(flows, by, CLIENTS)
            named = [group | {"pseudo": self._pseudo_of(group, stores)} for group in groups]
            shown[by] = {"rows": named, "number": number}
        self._publish("clients", shown)
        took = self._clock() - began
        self._clients_due = began + max(2 * WATCHED, SHARE * took)

    def _pseudo_of(self, group: Mapping[str, Any], stores: Sequence[str]) -> str:
        return self._pseudo.of(group["client"], stores) if stores else ""


def _event(name: str, what: Any) -> bytes:
    data = json.dumps(what, separators=(",", ":"))
    return f"event: {name}\ndata: {data}\n\n".encode()


def _shown(status: Mapping[str, Any], rows: Sequence[Row], rates: Rates) -> dict[str, Any]:
    shown = busiest(rows, ROWS)
    return {
        "version": status["version"],
        "pid": status["pid"],
        "since": status["since"],
        "workers": len(status["workers"]),
        "restarts": status["restarts"],
        "labels": list(status.get("labels", ()))[:ROWS],
        "live": sum(row.live for row in rows),
        "flows": sum(row.flows for row in rows),
        "errors": sum(row.errors for row in rows),
        "held": sum(row.state == HELD for row in rows),
        "mismatches": sum(row.is_trouble and row.state != HELD for row in rows),
        "rates": asdict(rates),
        "rows": [asdict(row) for row in sorted(shown, key=lambda row: row.listen)],
        "hidden": len(rows) - len(shown),
    }
