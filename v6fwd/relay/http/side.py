"""An end of an HTTP flow: what comes from it is judged before it moves.

A stream of `client_ip` says what may pass. What it lets through in one piece (a body of known
length, everything behind a switch of protocols) is spliced; the rest is read into the common
buffer, judged, and written as the slices that the stream gives back.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence

from v6fwd.client_ip.budget import TURN
from v6fwd.model.lean import Protocol
from v6fwd.relay.ends import End
from v6fwd.relay.tcp.side import COPY_ROUNDS, SUSTAINED, Owner, Side, buffer, buffers

HEAD_SIZE = 16 * 1024
"""Bytes that are read where a head comes next. What of a body is read with its head is copied
twice: 64 KiB of a body of 1 MiB cost as much as 180 KiB that are spliced."""
SPLICE_FROM = 16 * 1024
"""Bytes of a body that are worth a pipe; below that, one copy moves them."""
_SLICES = 16  # that one writev(2) takes; joining more of them is cheaper

_IN = select.EPOLLIN
_head_buffers: Sequence[memoryview] = [buffer[:HEAD_SIZE]]

Piece = bytes | memoryview


class HttpOwner(Owner, Protocol):
    """The flow that the sides belong to."""

    has_target: bool
    attends: bool

    def requests_began(self) -> None:
        """Heads of requests were let through."""

    def pause_requests(self) -> None:
        """Too many requests have no answer yet."""

    def requests_stopped(self) -> None:
        """The request stream has come to something that is not for the sides to decide."""

    def first_came(self, pieces: Sequence[Piece]) -> bool:
        """Requests were let through, and there is no target yet; True to read on."""

    def answers_moved(self) -> None:
        """Answers got further or their client drained, and `attends`: something waits for that."""

    def bad_answer(self, why: str) -> None:
        """The target's answer cannot be passed on."""

    def close(self, end: End) -> None:
        """Close both connections."""


class HttpSide(Side):
    """What both ends have in common."""

    __slots__ = ("http", "paused", "raw", "usual")

    def __init__(self, fd: int, flow: HttpOwner) -> None:
        super().__init__(fd, flow)
        self.http = flow
        self.raw = False  # from here on bytes are only moved
        self.paused = False  # not to be read until `go_on`
        self.usual = True  # neither of them

    def on_event(self, mask: int) -> None:
        """Mostly one whole message has come, and takes the quick path: few calls."""
        if mask != _IN or self.blocked or self.queued or self.ended or not self.usual:
            super().on_event(mask)
            return
        try:
            data = os.read(self.fd, HEAD_SIZE)  # 0.2 us less than a copy out of `buffer`
        except BlockingIOError:
            return
        except OSError:
            self.flow.broke(self)
            return
        self.came(data)

    def came(self, data: bytes) -> None:
        """Do with what one read has brought what is right for a message; b"": the end."""
        if not data:
            self._end()
            return
        is_full = len(data) == HEAD_SIZE
        if (self.quick(data) or self.take(data)) and is_full and not self._is_stuck():
            self._move(to_end=False)

    def _is_stuck(self) -> bool:
        return self.flow.closed or self.blocked or self.ended or self.queued

    def pause(self) -> None:
        """Do not read until `go_on`."""
        self.paused = True
        self.usual = False

    def go_raw(self) -> None:
        """Only move bytes from here on."""
        self.raw = True
        self.paused = self.usual = False

    def go_on(self) -> None:
        """Read (again): no edge tells what came in the meantime."""
        self.paused = False
        self.usual = self._is_usual()
        if not self._is_stuck():
            self._move(to_end=True)

    def _is_usual(self) -> bool:
        return not self.raw

    def put(self, pieces: Sequence[Piece]) -> bool:
        """Write to the other side; False where it does not take all."""
        if len(pieces) == 1:
            return self.put_one(pieces[0])
        if len(pieces) > _SLICES:
            return self.put_one(b"".join(pieces))
        try:
            sent = os.writev(self.other.fd, pieces)
        except OSError:  # it is full, or broken: `put_one` finds out which
            return self.put_one(b"".join(pieces))
        self.moved += sent
        return sent == sum(map(len, pieces)) or self.put_one(b"".join(pieces)[sent:])

    def put_one(self, piece: Piece) -> bool:
        """`put` for one piece."""
        size = len(piece)
        try:
            sent = os.write(self.other.fd, piece)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.flow.broke(self.other)
            return False
        self.moved += sent
        if sent < size:
            self.held = bytes(piece[sent:])
            self._block()
        return sent == size

    def passing(self) -> int:
        """Bytes that may move untouched; -1: all that will ever come."""
        raise NotImplementedError

    def passed(self, size: int) -> None:
        """So many of them have moved."""
        raise NotImplementedError

    def expects_head(self) -> bool:
        """Whether a head comes next, or goes on."""
        raise NotImplementedError

    def is_behind(self) -> bool:
        """Whether bytes were read that could not be judged in time."""
        raise NotImplementedError

    def quick(self, data: bytes) -> bool:
        """Pass on what is one usual message; False, and nothing was done, if it is not."""
        raise NotImplementedError

    def take(self, data: bytes) -> bool:
        """Judge and pass on; False where nothing more must be read for now."""
        raise NotImplementedError

    def _has_time(self, more: bool) -> bool:
        """Whether to read on; with `more` to be judged, the others have a turn first."""
        if more:
            Side._yield(self)
        return not more

    def _move(self, *, to_end: bool) -> None:
        if self.paused:
            return
        if self.is_behind():
            if self.take(b"") and not self._is_stuck():  # that was its turn
                self._yield()
            return
        passing = self.passing()
        if self.raw or passing < 0:
            super()._move(to_end=to_end)
        elif passing >= SPLICE_FROM and not self.urgent:
            self._splice_body()
        else:
            self._judge(to_end=to_end)

    def _move_last(self) -> None:
        """A short read may leave something to be judged: the end is read."""
        self._move(to_end=True)

    def _judge(self, *, to_end: bool) -> None:
        """One recv, one send, as `_copy` does; but what is sent is what may pass."""
        fd, clock = self.fd, self.flow.reactor.clock
        until = clock() + TURN
        room = _head_buffers if self.expects_head() else buffers
        for _ in range(COPY_ROUNDS):
            try:
                size = os.readv(fd, room)
            except BlockingIOError:
                return
            except OSError:
                self.flow.broke(self)
                return
            if not size:
                self._end()
                return
            if not self.take(bytes(buffer[:size])):
                return
            if size < len(room[0]) and not to_end:
                return
            room = buffers
            if self.raw or not -1 < self.passing() < SPLICE_FROM or clock() >= until:
                break
        self._yield()

    def _splice_body(self) -> None:
        """Move a body through a pipe, and not one byte behind it."""
        if self.pipe is None:
            self.pipe = self.flow.pipes.take(sustained=self.streak + self.passing() > SUSTAINED)
        if self.pipe is None:
            self._judge(to_end=True)
            return
        for _ in range(self.pipe.fills):
            size = self._through_pipe(self.pipe, min(self.passing(), self.pipe.size))
            if size < 0:
                return
            if not size:
                self._judge(to_end=True)
                return
            if self.passing() < SPLICE_FROM:
                break
        self._yield()

    def _taken(self, size: int) -> None:
        if self.raw or self.passing() < 0:
            super()._taken(size)
        else:
            self.passed(size)
