"""Keeps which pseudo IPv4 address stands for which network: a SQLite file behind a memory cache.

A client is looked up in the file when this process sees its network for the first time, and in
the cache from then on. Processes share the file: an address is assigned within one transaction,
so no two processes assign it twice. Nothing is synced to disk before the process ends or the log
is full: a crash of the process loses nothing, one of the machine may lose the last few. The time
when a network was last seen is written a few minutes late.

The file is bounded, since the owner of a /32 has four billion networks, and anybody can put any
source address into a datagram. Networks that no handshake has proven go first, and of these the
least recently seen.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from v6fwd.client_ip.pseudo_ipv4 import assign, network_of
from v6fwd.errors import RelayError

KEEP = 30 * 86_400
"""Seconds after which a network that was not seen loses its address.

Until then no other network gets it, so log lines and bans of a month mean one client.
"""
MOST = 1 << 19
"""Networks in the file, of some 90 bytes each. Beyond that, KEEP does not hold."""
TRIM_EVERY = 256
"""New networks between two looks whether there are too many, which take 15 ms in a full file."""
CACHED = 65_536
"""Networks kept in memory, about 200 bytes each."""
LOCK_PATIENCE = 0.25
"""Seconds to wait for another process, which holds the lock for one insertion (0.1 ms); nothing
moves here meanwhile, and then the client is refused."""
WRITE_SEEN_EVERY = 300.0
"""Seconds between two writings of who was seen."""

_SCHEMA = """
create table if not exists pseudo (
    address integer primary key,
    network blob not null,
    bits integer not null,
    seen integer not null,
    proven integer not null,
    unique (network, bits)
) strict;
create index if not exists pseudo_age on pseudo (proven, seen);
create table if not exists secret (key blob not null) strict;
"""


class Entry(NamedTuple):
    """One line of the store. `seen` is in seconds since 1970."""

    address: bytes
    network: bytes
    bits: int
    seen: int


class PseudoStore:
    """The store, open for giving out addresses."""

    def __init__(self, path: str, *, now: Callable[[], float] = time.time) -> None:
        """Open the file, or make it. Raises RelayError, naming it."""
        self._path = path
        self._now = now
        self._cache: dict[tuple[bytes, int], tuple[bytes, bool]] = {}
        self._until_trim = 1
        self._seen: set[tuple[bytes, int]] = set()
        self._timer: asyncio.TimerHandle | None = None
        with _naming(path):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):  # it says who was here: that is for nobody else
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(path, timeout=LOCK_PATIENCE, isolation_level=None)
            self._db.executescript("pragma journal_mode = wal; pragma synchronous = off;" + _SCHEMA)
            self._key = self._secret()

    def close(self) -> None:
        """Write what is not written yet, and close the file."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.write_seen()
        self._db.close()

    def write_seen_from(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call `write_seen` every WRITE_SEEN_EVERY seconds from now on."""

        def write() -> None:
            self.write_seen()
            self._timer = loop.call_later(WRITE_SEEN_EVERY, write)

        self._timer = loop.call_later(WRITE_SEEN_EVERY, write)

    def address_of(self, packed: bytes, bits: int, *, is_proven: bool = True) -> bytes:
        """The pseudo address of an IPv6 client, a new one where it has none. Raises RelayError.

        `is_proven`: a handshake has shown that the client's address is its own.
        """
        key = (network_of(packed, bits), bits)
        address, was_proven = self._cache.get(key, (b"", False))
        if not address or (is_proven and not was_proven):
            address = self._look_up(*key, is_proven=is_proven)
            if len(self._cache) >= CACHED:
                del self._cache[next(iter(self._cache))]
            self._cache[key] = address, is_proven
        self._seen.add(key)
        return address

    def write_seen(self) -> None:
        """Write when the networks seen since the last call were seen."""
        if self._seen:
            stamp = int(self._now())
            seen, self._seen = self._seen, set()
            try:
                self._db.execute("begin immediate")
                for key in seen:
                    query = "update pseudo set seen = ? where network = ? and bits = ?"
                    if not self._db.execute(query, (stamp, *key)).rowcount:
                        self._cache.pop(key, None)  # taken out, and its address may be another's
                self._db.execute("commit")
            except sqlite3.Error:  # busy or full: they will be seen again
                if self._db.in_transaction:
                    self._db.execute("rollback")

    def _look_up(self, network: bytes, bits: int, *, is_proven: bool) -> bytes:
        with _naming(self._path):
            self._db.execute("begin immediate")
            try:
                number = self._known(network, bits)
                if number is None:
                    number = self._give(network, bits)
                if is_proven:
                    query = "update pseudo set proven = 1 where address = ?"
                    self._db.execute(query, (number,))
            except BaseException:
                self._db.execute("rollback")
                raise
            self._db.execute("commit")
        return number.to_bytes(4, "big")

    def _known(self, network: bytes, bits: int) -> int | None:
        query = "select address from pseudo where network = ? and bits = ?"
        row = self._db.execute(query, (network, bits)).fetchone()
        return None if row is None else int(row[0])

    def _give(self, network: bytes, bits: int) -> int:
        now = int(self._now())

        def is_free(number: int) -> bool:
            query = "select seen from pseudo where address = ?"
            row = self._db.execute(query, (number,)).fetchone()
            return row is None or row[0] + KEEP < now

        self._trim_if_due()
        number = assign(network, bits, self._key, is_free)
        if number is None:
            raise RelayError(f"{self._path}: no pseudo IPv4 address is free")
        row = (number, network, bits, now)
        self._db.execute("insert or replace into pseudo values (?, ?, ?, ?, 0)", row)
        return number

    def _trim_if_due(self) -> None:
        self._until_trim -= 1
        if self._until_trim:
            return
        self._until_trim = TRIM_EVERY
        (count,) = self._db.execute("select count(*) from pseudo").fetchone()
        oldest = "select address from pseudo order by proven, seen limit ?"
        if count > MOST:
            self._db.execute(f"delete from pseudo where address in ({oldest})", (count - MOST,))

    def _secret(self) -> bytes:
        self._db.execute("begin immediate")
        row = self._db.execute("select key from secret").fetchone()
        if row is None:
            row = (os.urandom(32),)
            self._db.execute("insert into secret values (?)", row)
        self._db.execute("commit")
        return bytes(row[0])


def find_pseudo(path: str, packed: bytes) -> list[Entry]:
    """The entries for a pseudo IPv4 or an IPv6 address. Raises RelayError.

    An IPv6 address has up to two: for its /64, and for itself alone.
    """
    if len(packed) == 4:
        where, values = "address = ?", (int.from_bytes(packed, "big"),)
    else:
        where = "(network = ? and bits = 64) or (network = ? and bits = 128)"
        values = (network_of(packed, 64), packed)  # type: ignore[assignment]
    with _naming(path):
        if not Path(path).exists():
            raise RelayError(f"there is no store of pseudo addresses at {path}")
        db = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, timeout=2)
        try:
            query = f"select address, network, bits, seen from pseudo where {where}"
            rows = db.execute(query, values).fetchall()
        finally:
            db.close()
    return [Entry(int(row[0]).to_bytes(4, "big"), *row[1:]) for row in rows]


@contextmanager
def _naming(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        raise RelayError(f"cannot use the pseudo address store {path}: {text}") from None
