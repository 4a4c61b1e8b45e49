"""A worker, seen from the supervisor: its process, its channel, and what it has reported."""

from __future__ import annotations

import asyncio
import marshal
import resource
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from v6fwd.daemon.channel import Channel
from v6fwd.daemon.helper_handle import HelperHandle
from v6fwd.daemon.messages import (
    Answer,
    Ask,
    Change,
    Close,
    Message,
    MessageError,
    Open,
    Report,
    Revoke,
    Sought,
    UseHelper,
    read_by_supervisor,
    read_items,
)
from v6fwd.daemon.permits import permit_for, wants_permit
from v6fwd.daemon.process import Child
from v6fwd.errors import reason
from v6fwd.model import Forward, IPNetwork
from v6fwd.relay.counters import Snapshot
from v6fwd.relay.targets.mismatch import Heard

PATIENCE = 10.0
"""Seconds for a worker to answer; a new one opens thousands of forwards first."""
LITTLE_PATIENCE = 1.0
"""Seconds for one that has been silent already."""
MISSED = 5
"""Beats without an answer after which a worker counts as hung."""
LATE = 2
"""Beats without an answer after which it counts as silent: /healthz says so."""


class WorkerHandle:
    """A worker process and the supervisor's end of its channel.

    Large because process, channel, helper and open questions begin and end together.
    """

    def __init__(
        self,
        child: Child,
        sock: socket.socket,
        fork_helper: Callable[[WorkerHandle], HelperHandle | None],
        heard: Heard,
    ) -> None:
        """`heard` gets what the worker has seen of targets since its last report.

        Raises OSError.
        """
        self.usage = child.usage
        """What the process takes."""
        self.pid = child.pid
        self.since = time.time()
        """When it was forked, in seconds since 1970."""
        self.verdict = ""
        """Why we killed it; "" if we did not."""
        self._listens: set[str] = set()
        """The forwards that it may speak of: all that it was ever told to serve."""
        self._numbers: dict[str, bytes] = {}
        """Its last report on each forward, packed: a tenth of the memory, and seldom read."""
        self._child: Child | None = child
        self._channel = Channel(sock, read_by_supervisor, self._receive, violated=self._violated)
        self._fork_helper = fork_helper
        self._heard = heard
        self.sought: Callable[[], None] = tell_nobody
        """Called when flows of a service look for other tasks than those that it knows."""
        self.helper: HelperHandle | None = None
        """What has privileges in its stead, if it needs that."""
        self._number = 0
        self._asked: dict[int, _Question] = {}
        self._beat = -1
        self._missed = 0

    def watch(self, died: Callable[[int], None]) -> None:
        """Call `died` with the wait status when the process has ended. Raises OSError."""
        assert self._child is not None
        loop, child = asyncio.get_running_loop(), self._child
        loop.add_reader(child.pidfd, self._over, child, died)

    def send(self, message: Message, sock: socket.socket | None = None) -> None:
        """Send a message, and a copy of a socket with it. Never blocks.

        A worker that cannot be told all is killed: it would serve other forwards than we think.
        """
        try:
            self._send(message, sock)
        except (OSError, MemoryError) as error:
            why = reason(error) if isinstance(error, OSError) else "out of memory"
            self.kill(f"it cannot be told what to serve: {why}")

    def _send(self, message: Message, sock: socket.socket | None) -> None:
        """For a transparent forward the worker gets a helper first, and the helper a permit."""
        if isinstance(message, Open):
            self._listens.add(str(message.forward.listen))
        if isinstance(message, Open | Change):
            self._permit(message.forward)
        elif isinstance(message, Close) and self.helper is not None:
            self.helper.send(Revoke(str(message.listen)))
        self._channel.send(message, sock)

    def _permit(self, forward: Forward) -> None:
        if wants_permit(forward):
            if self.helper is None:
                self.helper = self._fork_helper(self)
                if self.helper is None:
                    return
                self._channel.send(UseHelper(), self.helper.for_worker)
                self.helper.release()
            self.helper.send(permit_for(forward))
        elif self.helper is not None:
            self.helper.send(Revoke(str(forward.listen)))

    @property
    def numbers(self) -> dict[str, Snapshot]:
        """The counters of each forward as last reported."""
        return {listen: marshal.loads(packed) for listen, packed in self._numbers.items()}

    # -- questions --

    async def ask(self, what: str) -> list[Any]:
        """Return the whole answer; [] from a worker that dies before it has given it."""
        answer = await self.demand(what)
        if answer is None:  # stopped or overloaded: its last reports must do
            return list(self.numbers.items()) if what == "snapshot" else []
        if what == "snapshot":
            for listen, numbers in answer:
                self._note(listen, numbers)
        return answer

    async def demand(
        self, what: str, networks: tuple[IPNetwork, ...] = (), listens: tuple[str, ...] = ()
    ) -> list[Any] | None:
        """As `ask`, but None from a worker that does not answer in time."""
        question = _Question(what)
        self._asked[number := self._next()] = question
        self.send(Ask(number, what, networks, listens))
        try:
            async with asyncio.timeout(LITTLE_PATIENCE if self.is_silent else PATIENCE):
                return await question.future
        except TimeoutError:
            del self._asked[number]
            return None

    def _next(self) -> int:
        self._number += 1
        return self._number

    def beat(self) -> None:
        """Ask for a sign of life. Kill the worker when it has not answered MISSED times.

        Beats are counted rather than seconds: if the supervisor was stopped, too, the worker has
        time to answer.
        """
        if self._beat < 0:
            self._missed = 0
            self._beat = self._next()
            self.send(Ask(self._beat, "settled"))
            return
        self._missed += 1
        if self._missed >= MISSED:
            self.kill("it hung")

    @property
    def is_silent(self) -> bool:
        """Whether it has not answered for some seconds."""
        return self._missed >= LATE

    # -- what comes --

    def _receive(self, message: Message, _fd: int) -> None:
        try:
            if isinstance(message, Report):
                self._note(message.listen, message.numbers)
            elif isinstance(message, Answer):
                self._answered(message)
            elif isinstance(message, Sought):
                self._note_sought(message.listen)
        except MessageError as error:
            self._channel.close()
            self._violated(str(error))

    def _answered(self, answer: Answer) -> None:
        if answer.number == self._beat and not answer.part:
            self._beat, self._missed = -1, 0
            return
        question = self._asked.get(answer.number)
        if question is None:  # too late, and nobody waits for it
            return
        question.add(answer.part, self._listens)
        if answer.last:
            del self._asked[answer.number]
            question.finish()

    def _note(self, listen: str, numbers: Snapshot) -> None:
        """A report knows less of live flows than an answer that was given before it."""
        if listen not in self._listens:
            raise MessageError("about a forward that it does not serve")
        packed = self._numbers.get(listen)
        known = numbers if packed is None else marshal.loads(packed)
        bytes_moved = {key: max(numbers[key], known[key]) for key in ("bytes_up", "bytes_down")}
        self._numbers[listen] = marshal.dumps(numbers | bytes_moved)
        before = {} if packed is None else known["first_answers"]
        if seen := _grown(numbers["first_answers"], before):
            self._heard(listen, seen)

    def _note_sought(self, listen: str) -> None:
        if listen not in self._listens:
            raise MessageError("about a forward that it does not serve")
        self.sought()

    def _violated(self, why: str) -> None:
        self.kill(f"it sent an invalid message ({why})")

    # -- the end --

    def kill(self, verdict: str) -> None:
        """End it at once. `verdict` completes "killed, since ..." in the log."""
        self.verdict = self.verdict or verdict
        if self._child is not None:
            self._child.kill()

    def _over(self, child: Child, died: Callable[[int], None]) -> None:
        asyncio.get_running_loop().remove_reader(child.pidfd)
        self._child = None
        status = child.wait()
        self._channel.read_all()
        self.close()
        died(status)

    def close(self) -> None:
        """Close the channel; open questions are answered with nothing."""
        self._channel.close()
        for question in self._asked.values():
            question.items.clear()
            question.finish()
        self._asked.clear()


def _grown(numbers: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """By how much each number has grown, of those that have."""
    grown = {key: number - before.get(key, 0) for key, number in numbers.items()}
    return {key: number for key, number in grown.items() if number > 0}


def tell_nobody() -> None:
    """Nobody knows of other tasks."""


class _Question:
    """What was asked, and the items of the answer so far."""

    def __init__(self, what: str) -> None:
        self.items: list[Any] = []
        self.future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._what = what
        self._most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)  # each flow has a descriptor

    def add(self, part: list[Any], listens: set[str]) -> None:
        """Take a part of the answer. Raises MessageError."""
        most = len(listens) if self._what == "snapshot" else self._most
        if len(self.items) + len(part) > most:
            raise MessageError("an answer of more items than there can be")
        if part:
            self.items += read_items(self._what, part, listens)

    def finish(self) -> None:
        """The answer is complete."""
        if not self.future.done():
            self.future.set_result(self.items)
