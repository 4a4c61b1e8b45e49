"""Finds the shims: those that announce themselves, and those that were there before the daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from v6fwd.docker.shim.holder import find_holder
from v6fwd.docker.shim.process import LET_GO, NoShimError, Shim, shims_of
from v6fwd.docker.shim.rendezvous import Rendezvous, run_folder
from v6fwd.errors import RelayError, reason
from v6fwd.log import Log

FREE_WITHIN = 2.0
"""Seconds that orphaned workers of a daemon that was killed may take to free a port."""


class ShimHandler(Protocol):
    """What is to be done about a shim."""

    def adopt(self, shim: Shim) -> None:
        """Take its port over. Raises RelayError where that is not possible, and NoShimError
        where the shim has ended or given the daemon up."""

    def stop(self, shim: Shim) -> None:
        """Dockerd stops the port: free it, then tell the shim."""

    def ended(self, shim: Shim) -> None:
        """The shim has ended, and its port with it."""


class Intake:
    """Every living shim that waits at our FIFO `rest`, by process id."""

    def __init__(self, handler: ShimHandler, log: Log) -> None:
        self._handler = handler
        self._log = log
        self._rendezvous = Rendezvous(run_folder(), self._on_line)
        self._shims: dict[int, Shim] = {}

    def open(self) -> None:
        """Read announcements from now on. Raises RelayError."""
        self._rendezvous.open(self._holder())

    def _holder(self) -> Path | None:
        try:
            return find_holder()
        except RelayError as error:
            text = f"every shim falls back to standalone mode, at 15 MB a port: {error}"
            self._log.warning("no-holder", text)
            return None

    async def scan(self) -> None:
        """Adopt the shims that wait already.

        The workers of a daemon that was killed may hold a port for a moment longer, so an
        adoption that fails is tried again until FREE_WITHIN seconds have passed.
        """
        until = asyncio.get_running_loop().time() + FREE_WITHIN
        for pid in shims_of(self._rendezvous.rest):
            while pid not in self._shims and not self._try(pid):
                if asyncio.get_running_loop().time() > until:
                    break
                await asyncio.sleep(0.02)

    def has(self, shim: Shim) -> bool:
        """Return whether it is still one of ours."""
        return self._shims.get(shim.pid) is shim

    def close(self) -> bool:
        """Read no more; gives whether another daemon does, which lives."""
        goes_on = self._rendezvous.close(self._shims)
        for shim in self._shims.values():
            shim.close()
        self._shims.clear()
        return goes_on

    def _on_line(self, pid: int, started: int, stops: bool) -> None:
        known = self._shims.get(pid)
        if known is not None and known.has_ended():
            self._on_end(known)
        try:
            if stops:
                self._handler.stop(self._shims.get(pid) or self._find(pid, started))
            elif pid not in self._shims:
                self._handler.adopt(self._find(pid, started))
        except NoShimError:
            self._forget(pid)  # it has ended, or is in standalone mode already
        except RelayError as error:
            self._refuse(pid, str(error))

    def _find(self, pid: int, started: int | None = None) -> Shim:
        shim = Shim.find(pid, self._rendezvous.rest, started)
        try:
            shim.watch(lambda: self._on_end(shim))
        except OSError as error:
            shim.tell(LET_GO)
            shim.close()
            raise NoShimError(f"cannot watch process {pid}: {reason(error)}") from error
        self._shims[pid] = shim
        return shim

    def _try(self, pid: int) -> bool:
        """Adopt a shim; gives whether that need not be tried again."""
        try:
            self._handler.adopt(self._find(pid))
        except NoShimError:
            self._forget(pid)
        except RelayError:
            self._forget(pid)
            return False
        return True

    def _refuse(self, pid: int, why: str) -> None:
        """Send the shim into standalone mode, where it meets the same error and reports it to
        dockerd: errors have one source."""
        shim = self._shims.get(pid)
        if shim is not None:
            text = f"shim falls back to standalone mode: {why}"
            self._log.limited("refused", "not-adopted", text)
            shim.tell(LET_GO)

    def _on_end(self, shim: Shim) -> None:
        self._handler.ended(shim)
        if self.has(shim):
            self._forget(shim.pid)

    def _forget(self, pid: int) -> None:
        shim = self._shims.pop(pid, None)
        if shim is not None:
            shim.close()
