"""Counts the flows of each client and limits their rate, in memory that all workers share.

The table is a row of buckets, each a row of slots; a client's slot is in the bucket that its
hash names, and nowhere else. A slot holds the whole key, so that no two clients are ever taken
for one, the time that its rate is paid up to, and a column of flows for each worker:

    paid (8)   key (32)   flows of worker 0 (4)   of worker 1 (4) ...

Only a worker writes its column, and whoever started it when it is dead. So a worker that is
killed leaves nothing behind, and leaving needs no lock. Entering does: fcntl(2)'s, on a byte
for each bucket; the kernel takes it back from a process that dies.

A slot without flows may be taken over, first the one whose rate was paid up the longest ago. In
a bucket where every slot has flows there is no room for a new client; who is known can come in.
"""

from __future__ import annotations

import enum
import fcntl
import mmap
import os
from _blake2 import blake2b  # hashlib brings OpenSSL, 3.4 MB
from collections.abc import Callable

SLOTS = 65_536
"""Clients that the table holds. The kernel takes memory only for pages that are used."""
BUCKET = 64
"""Slots in a bucket. With the table half full, one bucket in ten million is full."""

KEY_SIZE = 32
_KEY_AT = 8
_FLOWS_AT = _KEY_AT + KEY_SIZE
_NOBODY = bytes(KEY_SIZE)
_ROUNDING = 1e-6
"""Seconds: the error of sums of 64-bit floats after years of CLOCK_MONOTONIC."""


class Refusal(enum.IntEnum):
    """Why a client was not let in. Negative, to differ from a slot."""

    FLOWS = -1
    RATE = -2
    ROOM = -3


class ClientTable:
    """The shared memory. Made once, before the workers are forked."""

    def __init__(self, workers: int = 1, slots: int = SLOTS) -> None:
        """`slots` is rounded up to whole buckets."""
        self.workers = workers
        self.slot_size = (_FLOWS_AT + 4 * workers + 7) & ~7
        self.buckets = -(-slots // BUCKET)
        # A page more: CPython's fast search, behind mmap.find, reads one byte past its range.
        size = self.buckets * BUCKET * self.slot_size + mmap.PAGESIZE
        self.fd = _sealed_memory(size) if workers > 1 else -1
        self.memory = mmap.mmap(self.fd, size)
        self.flows = memoryview(self.memory).cast("I")
        self.paid = memoryview(self.memory).cast("d")
        self.secret = os.urandom(16)

    def bucket_of(self, key: bytes) -> int:
        """The bucket of a client. The hash is keyed, so nobody outside can aim at one bucket."""
        digest = blake2b(key, digest_size=8, key=self.secret).digest()
        return int.from_bytes(digest, "little") % self.buckets

    def lock(self, bucket: int) -> None:
        """Lock a bucket against the other workers."""
        if self.fd >= 0:
            fcntl.lockf(self.fd, fcntl.LOCK_EX, 1, bucket)

    def unlock(self, bucket: int) -> None:
        """Unlock it."""
        if self.fd >= 0:
            fcntl.lockf(self.fd, fcntl.LOCK_UN, 1, bucket)

    def forget_worker(self, worker: int) -> None:
        """Clear the column of a dead worker: its flows are over."""
        column = self.flows[_FLOWS_AT // 4 + worker :: self.slot_size // 4]
        for number, flows in enumerate(column):
            if flows:
                column[number] = 0

    def close(self) -> None:
        """Unmap the memory."""
        self.flows.release()
        self.paid.release()
        self.memory.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _sealed_memory(size: int) -> int:
    """Memory with a descriptor, for locks. No worker can shrink it, which would be a SIGBUS for
    everybody who looks into it."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    fd = os.memfd_create("v6fwd-clients", flags)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


class Clients:
    """The table as one worker sees it. A slot is what a client holds for each flow."""

    def __init__(self, table: ClientTable, worker: int, clock: Callable[[], float]) -> None:
        """`clock` gives seconds, the same ones to every worker, as CLOCK_MONOTONIC does."""
        self._table = table
        self._clock = clock
        self._column = _FLOWS_AT // 4 + worker

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors that a worker must keep open, for the locks."""
        return (self._table.fd,) if self._table.fd >= 0 else ()

    def enter(self, key: bytes, most: int, rate: float) -> int:
        """A slot for one flow more of the client `key` (KEY_SIZE bytes), or a Refusal.

        `most` flows at once and `rate` flows a second; 0 means no limit. A refusal costs the
        client nothing: who waits for its turn gets it.
        """
        table = self._table
        bucket = table.bucket_of(key)
        table.lock(bucket)
        try:
            slot = self._find(key, bucket)
            if slot < 0:
                slot = self._free(bucket)
                if slot < 0:
                    return Refusal.ROOM
                self._move_in(slot, key)
            elif most and self._flows(slot) >= most:
                return Refusal.FLOWS
            if rate and not self._pay(slot, rate):
                return Refusal.RATE
            slot = slot // 4 + self._column
            table.flows[slot] += 1
            return slot
        finally:
            table.unlock(bucket)

    def leave(self, slot: int) -> None:
        """Count one flow less in this slot."""
        self._table.flows[slot] -= 1

    def _find(self, key: bytes, bucket: int) -> int:
        """The slot of a client, as its offset; -1 if it has none."""
        memory, size = self._table.memory, self._table.slot_size
        start = bucket * BUCKET * size
        end = start + BUCKET * size
        at = memory.find(key, start, end)
        while at >= 0 and (astray := (at - _KEY_AT) % size):  # found across two fields
            at = memory.find(key, at - astray + size, end)
        return at - _KEY_AT if at >= 0 else -1

    def _free(self, bucket: int) -> int:
        """An empty slot, best one that was never used; -1 if all have flows."""
        never_used = self._find(_NOBODY, bucket)
        if never_used >= 0:
            return never_used
        size, paid = self._table.slot_size, self._table.paid
        start = bucket * BUCKET * size
        slots = range(start, start + BUCKET * size, size)
        empty = [slot for slot in slots if not self._flows(slot)]
        return min(empty, key=lambda slot: paid[slot // 8], default=-1)

    def _move_in(self, slot: int, key: bytes) -> None:
        """Take a slot over. A worker killed here leaves a slot without flows behind."""
        self._table.paid[slot // 8] = 0.0
        self._table.memory[slot + _KEY_AT : slot + _FLOWS_AT] = key

    def _flows(self, slot: int) -> int:
        first = (slot + _FLOWS_AT) // 4
        return sum(self._table.flows[first : first + self._table.workers])

    def _pay(self, slot: int, rate: float) -> bool:
        """Whether the client's rate has room for one flow more; then it is paid for.

        The generic cell rate algorithm (ITU-T I.371, annex A): a second's worth at once.
        """
        now, paid = self._clock(), self._table.paid
        due = max(now, paid[slot // 8]) + 1 / rate
        if due - now > max(1.0, 1 / rate) + _ROUNDING:
            return False
        paid[slot // 8] = due
        return True
