"""Keeps the list of containers up to date as long as the daemon lives."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from v6fwd.docker.engine.client import EngineApi, EngineError
from v6fwd.docker.engine.containers import Container, read_containers
from v6fwd.docker.shim.process import NoShimError, start_time
from v6fwd.log import Log, in_background

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds until an Engine that was lost is asked again; the pause doubles.

It starts anew after an Engine that answered for longer than the longest pause: one that breaks off
again and again is not asked ten times a second.
"""

ASK_EVERY = 10.0
"""Seconds until the Engine is asked again without an event: what stood in the way of a port, such
as another process, may have gone since."""
ASK_AGAIN = 1.0
"""Seconds until the Engine is asked again for a process that it did not tell."""


class _Process(NamedTuple):
    """A container's first process. `started` tells it from a later one of the same number; 0: it
    cannot be seen from here."""

    pid: int
    started: int

    def has_ended(self) -> bool:
        return self.started != 0 and _started(self.pid) != self.started


_NONE = _Process(0, 0)
_questions = itertools.count(1)


def _started(pid: int) -> int:
    try:
        return start_time(pid)
    except NoShimError:
        return 0


class Watcher:
    """Asks at the start, after every event and every `ask_every` seconds; calls `listed` with all
    containers of each answer, and then `changed` with those that run.

    `found` is called before the first answer of an Engine that was silent. `enters` tells which
    containers' processes must be known. That takes another request, which the Engine does not
    answer before it has started the container; `changed` is called again when it does. `lost`
    logs why the Engine cannot be asked; without it that is done here. `happened` gets each event.

    Large because events, the list and the processes are three questions under way at once, each
    with what it has learnt, and each of those who are told is a parameter.
    """

    def __init__(
        self,
        api: EngineApi,
        log: Log,
        found: Callable[[], None],
        listed: Callable[[Sequence[Container]], None],
        changed: Callable[[Sequence[Container]], None],
        enters: Callable[[Container], bool],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        ask_every: float = ASK_EVERY,
        lost: Callable[[str], None] | None = None,
        happened: Callable[[object], None] | None = None,
    ) -> None:
        self._api = api
        self._log = log
        self._found = found
        self._listed = listed
        self._changed = changed
        self._enters = enters
        self._sleep = sleep
        self._ask_every = ask_every
        self._on_lost = lost
        self._happened = happened
        self._stirred = asyncio.Event()
        self._running: Sequence[Container] = ()
        self._entered: set[str] = set()
        self._processes: dict[str, _Process] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self.is_lost = True
        """Whether the Engine cannot be asked now."""
        self.asked = 0
        """The last question for its containers; they are numbered over all watchers."""
        self.answered = 0
        """The last question that it has answered; 0: none."""
        self._told = False

    def stir(self) -> None:
        """Ask again soon, without an event."""
        self._stirred.set()

    async def run(self) -> None:
        """Run until cancelled; an Engine that restarts is found again."""
        clock = asyncio.get_running_loop().time
        pause = FIRST_PAUSE
        while True:
            since = clock()
            try:
                async with self._api.events() as events:
                    await self._follow(events)
            except EngineError as error:
                self._tell_lost(str(error))
            except Exception as error:  # of those who were told: that must not end the watch
                self.is_lost = True
                self._log.limited("defect", "defect", f"internal error: {error!r}")
            if clock() - since > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            await self._sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _follow(self, events: AsyncIterator[object]) -> None:
        """Follow until the Engine breaks off. It is asked once for any number of events."""
        self._stirred.set()
        listening = asyncio.ensure_future(self._listen(events))
        asking = asyncio.ensure_future(self._ask_again_and_again())
        try:
            await asyncio.wait([listening, asking], return_when=asyncio.FIRST_COMPLETED)
        finally:
            tasks = (listening, asking, *self._asking.values())
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result

    async def _listen(self, events: AsyncIterator[object]) -> None:
        async for event in events:
            if self._happened is not None:
                self._happened(event)
            self._stirred.set()
        raise EngineError(f"Docker at {self._api.host} has ended")

    async def _ask_again_and_again(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._ask_every):
                    await self._stirred.wait()
            self._stirred.clear()
            self.asked = next(_questions)
            containers = _read(await self._api.containers(), self._api.host)
            self.answered = self.asked
            if self.is_lost:
                self._tell_found()
            self._listed(containers)
            self._running = [container for container in containers if container.is_running]
            self._entered = {each.id for each in self._running if self._enters(each)}
            self._ask_for_pids()
            self._tell()

    def _tell(self) -> None:
        """Report those that run, except those whose process is needed and not known: they are
        starting or ending."""
        told = [
            replace(container, **self._processes.get(container.id, _NONE)._asdict())
            for container in self._running
            if container.id in self._processes or container.id not in self._entered
        ]
        self._changed(told)

    # -- processes --

    def _ask_for_pids(self) -> None:
        """Ask for each process that is needed and not known."""
        for name in list(self._processes):
            if name not in self._entered or self._processes[name].has_ended():
                del self._processes[name]
        for name in self._entered:
            process = self._processes.get(name)
            if (process is None or not process.started) and name not in self._asking:
                task = in_background(self._ask_for_pid(name), f"process of {name}")
                task.add_done_callback(functools.partial(self._asked, name))
                self._asking[name] = task

    def _asked(self, name: str, _: asyncio.Task[None]) -> None:
        del self._asking[name]

    async def _ask_for_pid(self, name: str) -> None:
        pid = await self._api.pid(name)
        if not pid:
            asyncio.get_running_loop().call_later(ASK_AGAIN, self.stir)
            return
        before = self._processes.get(name)
        self._processes[name] = _Process(pid, _started(pid))
        if before is None or before.pid != pid:
            self._tell()

    # -- the log --

    def _tell_lost(self, why: str) -> None:
        self.is_lost = True
        if self._told:
            return
        self._told = True
        if self._on_lost is not None:
            self._on_lost(why)
        else:
            self._log.warning("engine-lost", f"{why}; labels are read once it answers")

    def _tell_found(self) -> None:
        self.is_lost = False
        self._found()
        if self._told:
            self._told = False
            self._log.info("engine-found", f"Docker at {self._api.host} answers")


def _read(items: Iterable[Mapping[str, Any]], host: str) -> list[Container]:
    try:
        return read_containers(items)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        text = f"Docker at {host} describes a container in a way that v6fwd cannot read: {error!r}"
        raise EngineError(text) from error
