"""What the daemon answers at its control socket, and does for the status page."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterable
from typing import Any, Protocol

from v6fwd.config import Config
from v6fwd.daemon.bans import CHANGES, Banning
from v6fwd.daemon.control import Request, failed
from v6fwd.daemon.following import is_of_successor
from v6fwd.daemon.peer import may_rule, peer_of
from v6fwd.daemon.supervisor import Supervisor
from v6fwd.daemon.takeover import hand_over, listing
from v6fwd.model import Endpoint, InputError, parse_listen

RULING = ("reload", "drain", "takeover", "leave", *CHANGES)
"""Requests that change something: of root and the daemon's own user only. The group of the control
socket may read."""
FLOWS_A_LINE = 500
"""Flows in one line of an answer."""


class Life(Protocol):
    """What requests need of the daemon."""

    supervisor: Supervisor
    reloaded: str
    """What the last reload has changed."""

    @property
    def config(self) -> Config:
        """The configuration in force."""

    @property
    def is_stopping(self) -> bool:
        """Whether it takes no more clients."""

    def reload(self) -> list[str]:
        """Read the configuration again; return the errors, if any."""

    def stop(self, grace: float) -> None:
        """Let flows finish for `grace` seconds, then end."""

    def leave(self, kept: list[Endpoint], successor: int) -> None:
        """The same, as a process with this id goes on with the endpoints in `kept`."""

    def close(self, endpoints: Iterable[Endpoint]) -> None:
        """Close forwards until the next reload."""

    async def status(self) -> dict[str, Any]:
        """The answer to `status`."""


class Requests:
    """Answers requests, each an object with the key `do`."""

    def __init__(self, life: Life, bans: Banning) -> None:
        self._life = life
        self._bans = bans

    async def answer(self, request: Request, sock: socket.socket) -> AsyncIterator[dict[str, Any]]:
        """Yield the lines of the answer to who is at the other end of `sock`."""
        life = self._life
        do = request.get("do")
        if do in RULING and not may_rule(sock, life.supervisor.pool.pids):
            yield failed(f"only root and the daemon's user may {do}")
            return
        match do:
            case "status":
                yield await life.status()
            case "flows":
                flows = await life.supervisor.flows()
                for at in range(0, len(flows), FLOWS_A_LINE):
                    yield {"flows": flows[at : at + FLOWS_A_LINE]}
                yield {"done": True}
            case "bans":
                for some in self._bans.listed():
                    yield {"bans": some}
                yield {"done": True}
            case "reload" | "drain" | "ban" | "unban" | "kill":
                yield await self.change(request)
            case "takeover":
                names = listing(life.supervisor.listen_sockets)
                metrics = str(life.config.metrics.listen or "")
                yield {"sockets": [name for name, _ in names], "metrics": metrics, "done": True}
                await hand_over(sock, [each for _, each in names])
            case "leave":
                kept = [parse_listen(text)[0] for text in request["kept"]]
                life.leave(kept, peer_of(sock).pid)
                yield {"followed": True, "done": True}
            case other:
                yield failed(f"cannot do {other!r}")

    async def change(self, request: Request) -> dict[str, Any]:
        """Do what a request says: one of CHANGES, reload or drain."""
        life = self._life
        match request["do"]:
            case "reload":
                errors = life.reload()
                await life.supervisor.settled()
                return failed(*errors) if errors else {"result": life.reloaded, "done": True}
            case "drain":
                return self._drain(request.get("listen"))
        if life.is_stopping and not is_of_successor(request):
            return failed("this daemon is stopping")
        return await self._bans.change(request)

    def _drain(self, listen: str | None) -> dict[str, Any]:
        seconds = self._life.config.limits.drain_timeout
        grace = f"{seconds:g} s to finish"
        if listen is None:
            self._life.stop(seconds)
            return {"result": f"draining: flows have {grace}, then v6fwd stops", "done": True}
        try:
            endpoints = parse_listen(listen)
        except InputError as error:
            return failed(str(error))
        for endpoint in endpoints:
            if endpoint not in self._life.supervisor.forwards:
                return failed(f"{endpoint} is no forward of this daemon")
        self._life.close(endpoints)
        named = " and ".join(map(str, endpoints)) if len(endpoints) < 3 else listen
        result = f"draining {named}: flows have {grace}; the next reload opens it again"
        return {"result": result, "done": True}
