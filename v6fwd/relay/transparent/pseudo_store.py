"""Which pseudo IPv4 address stands for whom: a SQLite file, behind a cache in memory.

A client is looked up in the file when this process sees its network for the first time; then
the cache knows it. The file is shared: a new address is given within one transaction, so two
processes never give one address twice. Nothing is synced to disk before the process ends or
the log is full: after a crash of the process all is there, after one of the machine the last
few may be missing. When a network was last seen is written a few minutes late.

Addresses are given up by the store's own clock (`store_clock`), never by the wall clock: a clock
that is set forward by a year must not give a client's address to another one. A file that is no
store of ours is set aside, and a new one begun: the alternative is to refuse every client.

The file is bounded, since whoever has a /32 has four billion networks, and anybody can write any
address into a datagram. What goes is what was not seen for longest, and before all others those
networks that no handshake has proven to be their own.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from v6fwd.client_ip.pseudo_ipv4 import assign, network_of
from v6fwd.errors import RelayError
from v6fwd.model.lean import NamedTuple
from v6fwd.relay.transparent.pseudo_file import (
    is_rubbish,
    locked,
    naming,
    set_aside,
    uptime,
)

KEEP = 30 * 86_400
"""Seconds of the store's clock after which a network that was not seen gives its address up.

Until then nobody else gets it: log lines and bans of a month speak of one client.
"""
MOST = 1 << 19
"""Networks in the file, of some 90 bytes each. Beyond that KEEP is not kept."""
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
    used integer not null default 0,
    unique (network, bits)
) strict;
create index if not exists pseudo_use on pseudo (proven, used);
create table if not exists secret (key blob not null) strict;
create table if not exists clock (boot text not null, at integer not null, elapsed integer not null)
    strict;
"""
_TO_0_2 = """
alter table pseudo add column used integer not null default 0;
drop index if exists pseudo_age;
"""
"""What a store of release 0.1 lacks. Its networks count as seen when the store's clock started."""

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Entry(NamedTuple):
    """One line of the store. `seen` is in seconds since 1970."""

    address: bytes
    network: bytes
    bits: int
    seen: int


class PseudoStore:
    """The store, open for giving out addresses."""

    def __init__(
        self,
        path: str,
        *,
        now: Callable[[], float] = time.time,
        uptime: Callable[[], tuple[str, int]] = uptime,
        tell: Callable[[str], object] = str,
    ) -> None:
        """Open the file, or make it. Raises RelayError, naming it.

        `now` gives seconds since 1970, for people; `uptime` those since the start of the machine,
        and which start that was; `tell` logs that a file was set aside.
        """
        self._path = path
        self._now = now
        self._uptime = uptime
        self._tell = tell
        self._cache: dict[tuple[bytes, int], tuple[bytes, bool]] = {}
        self._until_trim = 1
        self._seen: set[tuple[bytes, int]] = set()
        self._timer: asyncio.TimerHandle | None = None
        with naming(path):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._open()

    def close(self) -> None:
        """Write what is not written yet, to the disk."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.write_seen()
        self._db.close()

    def write_seen_from(self, loop: asyncio.AbstractEventLoop) -> None:
        """Do `write_seen` from time to time from now on."""

        def write() -> None:
            self._timer = loop.call_later(WRITE_SEEN_EVERY, write)
            self.write_seen()

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
        """Write down who was seen since the last time."""
        if not self._seen:
            return
        seen, self._seen = self._seen, set()
        try:
            with self._transaction():
                stamp, used = int(self._now()), self._store_clock()
                for key in seen:
                    query = "update pseudo set seen = ?, used = ? where network = ? and bits = ?"
                    if not self._db.execute(query, (stamp, used, *key)).rowcount:
                        self._cache.pop(key, None)  # taken out, and its address may be another's
        except sqlite3.Error:  # busy or full: they will be seen again; damaged: `_look_up` tells
            pass

    # -- the file --

    def _open(self) -> None:
        """Open the file, a new one where that is no store. Raises OSError, sqlite3.Error."""
        with locked(self._path):  # of two processes that find rubbish, one sets it aside
            try:
                self._connect()
            except sqlite3.DatabaseError as error:
                if not is_rubbish(error):
                    raise
                self._set_aside(error)
                self._connect()

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        aside = set_aside(self._path)
        text = f"{self._path} cannot be read as a store of pseudo addresses: {error}"
        self._tell(f"{text}; kept as {aside}, a new one begun")

    def _connect(self) -> None:
        with suppress(FileExistsError):  # it says who was here: that is for nobody else
            os.close(os.open(self._path, _NEW, 0o600))
        self._db = sqlite3.connect(self._path, timeout=LOCK_PATIENCE, isolation_level=None)
        try:
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = off")
            self._make_tables()
            self._key = self._secret()
            with self._transaction():
                self._store_clock()
            self._inode = os.stat(self._path).st_ino
        except BaseException:
            self._db.close()
            raise

    def _make_tables(self) -> None:
        columns = [row[1] for row in self._db.execute("pragma table_info(pseudo)")]
        if columns and "used" not in columns:
            self._db.executescript(f"begin immediate; {_TO_0_2} commit;")
        self._db.executescript(_SCHEMA)
        self._db.execute("select address, network, bits, seen, proven, used from pseudo limit 1")

    def _begin_anew(self, error: sqlite3.DatabaseError | None = None) -> None:
        """Open what is at the path now; the addresses given here stay with their networks.

        `error`: what is wrong with the file that was open, if nobody has replaced that yet.
        """
        self._db.close()
        if error is not None:
            with locked(self._path):
                if not self._has_moved():
                    self._set_aside(error)
        self._open()
        with self._transaction():
            row = (int(self._now()), self._store_clock())
            query = "insert or ignore into pseudo values (?, ?, ?, ?, ?, ?)"
            for (network, bits), (address, is_proven) in self._cache.items():
                number = int.from_bytes(address, "big")
                self._db.execute(query, (number, network, bits, row[0], is_proven, row[1]))

    def _has_moved(self) -> bool:
        """Whether somebody has set the file aside, or removed it."""
        try:
            return os.stat(self._path).st_ino != self._inode
        except FileNotFoundError:
            return True

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("begin immediate")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise
        self._db.execute("commit")

    # -- networks and their addresses --

    def _look_up(self, network: bytes, bits: int, *, is_proven: bool) -> bytes:
        with naming(self._path):
            if self._has_moved():
                self._begin_anew()
            try:
                return self._find_or_give(network, bits, is_proven=is_proven)
            except sqlite3.DatabaseError as error:
                if not is_rubbish(error):
                    raise
                self._begin_anew(error)
            return self._find_or_give(network, bits, is_proven=is_proven)

    def _find_or_give(self, network: bytes, bits: int, *, is_proven: bool) -> bytes:
        with self._transaction():
            number = self._known(network, bits)
            if number is None:
                number = self._give(network, bits)
            if is_proven:
                self._db.execute("update pseudo set proven = 1 where address = ?", (number,))
        return number.to_bytes(4, "big")

    def _known(self, network: bytes, bits: int) -> int | None:
        query = "select address from pseudo where network = ? and bits = ?"
        row = self._db.execute(query, (network, bits)).fetchone()
        return None if row is None else int(row[0])

    def _give(self, network: bytes, bits: int) -> int:
        clock = self._store_clock()

        def is_free(number: int) -> bool:
            query = "select used from pseudo where address = ?"
            row = self._db.execute(query, (number,)).fetchone()
            return row is None or row[0] + KEEP < clock

        self._trim_if_due()
        number = assign(network, bits, self._key, is_free)
        if number is None:
            raise RelayError(f"{self._path}: no pseudo IPv4 address is free")
        row = (number, network, bits, int(self._now()), clock)
        self._db.execute("insert or replace into pseudo values (?, ?, ?, ?, 0, ?)", row)
        return number

    def _trim_if_due(self) -> None:
        self._until_trim -= 1
        if self._until_trim:
            return
        self._until_trim = TRIM_EVERY
        (count,) = self._db.execute("select count(*) from pseudo").fetchone()
        oldest = "select address from pseudo order by proven, used limit ?"
        if count > MOST:
            self._db.execute(f"delete from pseudo where address in ({oldest})", (count - MOST,))

    def _store_clock(self) -> int:
        """Seconds that the machine has run since the store was made; never backwards.

        Time between two starts of the machine does not count: only the wall clock could tell it.
        To be called within a transaction.
        """
        boot, at = self._uptime()
        row = self._db.execute("select boot, at, elapsed from clock").fetchone()
        if row is None:
            self._db.execute("insert into clock values (?, ?, 0)", (boot, at))
            return 0
        elapsed = int(row[2]) + (max(0, at - row[1]) if row[0] == boot else 0)
        self._db.execute("update clock set boot = ?, at = ?, elapsed = ?", (boot, at, elapsed))
        return elapsed

    def _secret(self) -> bytes:
        with self._transaction():
            row = self._db.execute("select key from secret").fetchone()
            if row is None:
                row = (os.urandom(32),)
                self._db.execute("insert into secret values (?)", row)
        return bytes(row[0])


def find_pseudo(path: str, packed: bytes) -> list[Entry]:
    """What the store says of a pseudo IPv4 or an IPv6 address. Raises RelayError.

    Up to two lines for an IPv6 address: for its /64, and for itself alone.
    """
    if len(packed) == 4:
        where, values = "address = ?", (int.from_bytes(packed, "big"),)
    else:
        where = "(network = ? and bits = 64) or (network = ? and bits = 128)"
        values = (network_of(packed, 64), packed)  # type: ignore[assignment]
    with naming(path):
        if not Path(path).exists():
            raise RelayError(f"there is no store of pseudo addresses at {path}")
        db = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, timeout=2)
        try:
            query = f"select address, network, bits, seen from pseudo where {where}"
            rows = db.execute(query, values).fetchall()
        finally:
            db.close()
    return [Entry(int(row[0]).to_bytes(4, "big"), *row[1:]) for row in rows]
