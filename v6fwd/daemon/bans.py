"""Bans, as asked for at the control socket: `ban`, `unban`, `bans`.

A ban is answered when all workers refuse the client, and a predecessor that still has flows has
reset his. See relay/limits/bans.py for how workers know.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Network
from itertools import islice
from pathlib import Path
from typing import Any

from v6fwd.client_ip.pseudo_ipv4 import is_pseudo
from v6fwd.daemon.ban_journal import Ban, BanJournal
from v6fwd.daemon.control import failed
from v6fwd.daemon.following import Following, is_of_successor, joined, numbered
from v6fwd.daemon.supervisor import Supervisor
from v6fwd.errors import RelayError
from v6fwd.log import Log, attempt, counted
from v6fwd.model import ClientIP, InputError, IPNetwork, Transparent, ip_text
from v6fwd.model.banning import network_text, parse_ban, parse_client
from v6fwd.relay.limits.bans import MOST, TableFullError

MAX_SECONDS = 366 * 86_400.0
"""The longest time with an end, as in every option."""
SWEEP_EVERY = 10.0
"""Seconds between two looks for bans that are over, each at a part of the table: 3 ms."""
PARTS = 16
AT_ONCE = 1000
"""Networks in a request, and listeners: they take time and memory here, and to reset flows they go
in one message to a worker."""
A_LINE = 500
"""Bans in one line of an answer."""
NAMED = 3
"""Bans that one line of the log names."""

CHANGES = ("ban", "unban", "kill")
"""Requests that change something."""

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A network, and the pseudo address that was written for it."""

    network: IPNetwork
    pseudo: str = ""

    def told(self) -> dict[str, str]:
        """For an answer."""
        return {"network": network_text(self.network), "pseudo": self.pseudo}


class Banning:
    """Changes the bans, keeps them over restarts, ends them in time."""

    def __init__(
        self,
        supervisor: Supervisor,
        path: Path,
        log: Log,
        passing: Callable[[], int],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`path`: the file that keeps them; `passing` counts the ports whose IPv4 clients do not
        come through us."""
        self._pool = supervisor.pool
        self._table = supervisor.bans
        self._forwards = supervisor.forwards
        self._log = log
        self._passing = passing
        self._clock = clock
        self._journal = BanJournal(path, self._tell)
        self._part = 0
        self._timer: asyncio.TimerHandle | None = None
        self._predecessor: Following | None = None

    def _tell(self, text: str) -> None:
        self._log.warning("ban-file", text)

    # -- from start to end --

    def load(self, *, beside: bool) -> None:
        """Ban who was banned before. To be called before the workers start.

        `beside` a predecessor, who may still write.
        """
        self._journal.load(self._table)
        if not beside:
            self._journal.tidy(self._table, at_once=True)
        self._timer = asyncio.get_running_loop().call_later(SWEEP_EVERY, self._sweep)

    async def succeed(self, predecessor: Following) -> None:
        """Ban whom a predecessor has banned since `load`; from now on it follows us."""
        self._predecessor = predecessor
        self._journal.catch_up(self._table)
        self._journal.tidy(self._table, at_once=True)
        await self._pool.demand("bans")

    def close(self) -> None:
        """Stop the timer. A predecessor is followed up to the end of this process."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_EVERY, self._sweep)
        had = len(self._table)
        self._part = (self._part + 1) % PARTS
        self._table.sweep(self._part, PARTS)
        if had and not len(self._table):  # workers need not look any more
            attempt(self._pool.tell_bans)
        self._journal.tidy(self._table)

    # -- requests --

    async def change(self, request: Answer) -> Answer:
        """Do what a request says, one of CHANGES."""
        do = {"ban": self.ban, "unban": self.unban, "kill": self.kill}[request["do"]]
        try:
            done = await do(request) | {"done": True}
        except InputError as error:
            done = failed(str(error))
        if self._predecessor is not None:  # it may have done a part of what failed, too
            done = joined(done, await self._predecessor.change(request))
        return numbered(done, request)

    def _keep(self, request: Answer, bans: Iterable[Ban]) -> str:
        """Write what has changed to the file; return what failed. A successor writes it itself."""
        return "" if is_of_successor(request) else self._journal.append(bans)

    async def ban(self, request: Answer) -> Answer:
        """Ban the clients in `networks` for `seconds`. Raises InputError."""
        asked = self._asked(request, parse_ban)
        until = self._until(request.get("seconds"))
        told, failure = self._add(asked, until)
        changed = [each for each in told if each["change"] != "kept"]
        pairs = zip(asked, told, strict=False)
        bans = ((one.network, until) for one, each in pairs if each in changed)
        unkept = self._keep(request, bans)
        done = await self._pool.demand("bans")
        ended = done.numbers.total()
        if changed:
            who = _named(changed) + _for(request.get("seconds"))
            self._log.info("banned", f"banned {who}: {counted(ended, 'flow')} reset", flows=ended)
        if failure:
            raise InputError(failure)
        return {
            "bans": told,
            "ended": ended,
            "missing": done.missing,
            "unkept": unkept,
            "passing": self._passing() if any(one.network.version == 4 for one in asked) else 0,
        }

    def _add(self, asked: Iterable[Asked], until: int) -> tuple[list[Answer], str]:
        told: list[Answer] = []
        for each in asked:
            former = self._table.until(each.network)
            kept = former is not None and (not former or 0 < until <= former)
            if not kept:
                try:
                    self._table.add(each.network, until)
                except TableFullError:
                    count = len(told)
                    return told, f"no room for more than {MOST} bans; {count} of these are banned"
            change = "kept" if kept else "new" if former is None else "prolonged"
            told.append(each.told() | {"until": former if kept else until, "change": change})
        return told, ""

    async def unban(self, request: Answer) -> Answer:
        """End the bans of `networks`, or all of them. Raises InputError."""
        if request.get("all") is True:
            bans = [(network, -1) for network, _ in self._table]
            self._table.clear()
            told: list[Answer] = [{"network": network_text(each), "pseudo": ""} for each, _ in bans]
        else:
            asked = self._asked(request, parse_client)
            told = [each.told() | self._remove(each.network) for each in asked]
            bans = [(each.network, -1) for each in asked]
        unkept = self._keep(request, bans)
        done = await self._pool.demand("bans")
        if ended := [each for each in told if each.get("was_banned", True)]:
            self._log.info("unbanned", f"unbanned {_named(ended)}")
        return {"bans": told, "missing": done.missing, "unkept": unkept}

    def _remove(self, network: IPNetwork) -> Answer:
        was_banned = self._table.remove(network)
        wider = self._table.covering(network)
        return {"was_banned": was_banned, "covered": network_text(wider) if wider else ""}

    def listed(self) -> Iterator[list[Answer]]:
        """The bans in force, so many at a time."""
        bans = iter(self._table)
        while some := [*islice(bans, A_LINE)]:
            yield [{"network": network_text(each), "until": until} for each, until in some]

    async def kill(self, request: Answer) -> Answer:
        """Reset the flows of clients in `networks` at `listens`, or all. Raises InputError."""
        asked = self._asked(request, parse_client, may_be_none=True)
        listens = tuple(_texts(request.get("listens", ())))
        if not (asked or listens or request.get("all") is True):
            raise InputError("nothing says which flows are to end")
        if len(listens) > AT_ONCE:
            raise InputError(f"more than {AT_ONCE} listeners at once")
        done = await self._pool.demand("end", tuple(each.network for each in asked), listens)
        ended = done.numbers.total()
        self._log.info("killed", f"ended {counted(ended, 'flow')} by request", flows=ended)
        return {"ended": dict(done.numbers), "missing": done.missing}

    def _asked(
        self, request: Answer, parse: Callable[[str], IPNetwork], *, may_be_none: bool = False
    ) -> list[Asked]:
        """The networks of a request, once each. Raises InputError."""
        texts = _texts(request.get("networks", ()))
        if not texts and not may_be_none:
            raise InputError("nothing says who is meant")
        if len(texts) > AT_ONCE:
            raise InputError(f"more than {AT_ONCE} networks at once")
        asked = [self._behind(parse(text)) for text in texts]
        return [*{each.network: each for each in asked}.values()]

    def _behind(self, network: IPNetwork) -> Asked:
        """The network behind a pseudo address; any other is itself. Raises InputError."""
        packed = network.network_address.packed
        if network.version == 6 or not is_pseudo(packed):
            return Asked(network)
        stores = {
            each.transparent.pseudo_store
            for each in self._forwards.values()
            if each.client_ip is ClientIP.TRANSPARENT
        }
        return Asked(network_behind(packed, stores), str(network.network_address))

    def _until(self, seconds: Any) -> int:
        """When a ban for so many seconds ends; 0: never. Raises InputError."""
        if seconds is None:
            return 0
        if type(seconds) not in (int, float) or not 0 < seconds <= MAX_SECONDS:
            raise InputError(f"{seconds!r} is not a number of seconds up to {MAX_SECONDS:.0f}")
        return math.ceil(self._clock() + float(seconds))


def network_behind(packed: bytes, stores: Iterable[str]) -> IPNetwork:
    """The network that a pseudo address stands for. Raises InputError."""
    from v6fwd.relay.transparent.pseudo_store import find_pseudo  # SQLite: not for every daemon

    text, errors = ip_text(packed), []
    found: set[IPNetwork] = set()
    for store in sorted({*stores} or {Transparent().pseudo_store}):
        try:
            entries = find_pseudo(store, packed)
            found |= {IPv6Network((each.network, each.bits)) for each in entries}
        except RelayError as error:
            errors.append(str(error))
    if len(found) == 1:
        return found.pop()
    if found:
        raise InputError(f"{text} is {' and '.join(map(str, sorted(found, key=str)))}: name one")
    raise InputError("; ".join([f"{text} is the pseudo address of nobody", *errors]))


def _texts(value: Any) -> list[str]:
    """Raises InputError for what is no list of texts."""
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise InputError(f"{value!r:.60} is not a list of texts")
    return [*value]


def _named(bans: list[Answer]) -> str:
    """The first of them, and how many more there are."""
    names = [str(each["network"]) for each in bans[:NAMED]]
    more = len(bans) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _for(seconds: float | None) -> str:
    return "" if seconds is None else f" for {seconds:g} s"
