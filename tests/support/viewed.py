"""For tests of the status page and of `top`: statuses, flows and a feed that asks for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from v6fwd.daemon.view.admin import Admin
from v6fwd.daemon.view.feed import Asked, Feed
from v6fwd.daemon.view.guard import Guard
from v6fwd.daemon.view.pages import EVENTS, status_pages
from v6fwd.daemon.view.recent import Recent
from v6fwd.daemon.web import WebServer
from v6fwd.log import Log
from v6fwd.model import Endpoint, IPNetwork
from v6fwd.relay.counters import Counters

HOSTILE = '<img src=x onerror="document.title=\'hacked\'"><script>document.title="hacked"</script>'
"""A name that is harmful as HTML."""


def a_forward(listen: str = "[::]:80", **numbers: Any) -> dict[str, Any]:
    """A forward as the daemon's status has it."""
    words = {"listen": listen, "target": "172.17.0.2:80", "client_ip": "none", "state": "open"}
    return words | {"since": 1.5e9, "mismatch": ""} | Counters().snapshot() | numbers


def a_status(*forwards: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A daemon with one worker."""
    workers = [{"slot": 0, "pid": 1, "since": 1.0}]
    daemon = {"version": "1.2.3", "pid": 3, "since": 1.5e9, "workers": workers, "restarts": 4}
    return {**daemon, "forwards": list(forwards), **more}


def a_flow(client: str, up: int = 0, down: int = 0, **more: Any) -> dict[str, Any]:
    """A flow as the daemon describes it."""
    flow = {"client": client, "client_port": 1, "listen": "[::]:80", "target": "172.17.0.2:80"}
    return flow | {"bytes_up": up, "bytes_down": down, "seconds": 9.0, "worker": 7} | more


class View:
    """A web server with the status page; `status` and `flows` are what its daemon says."""

    def __init__(self, *, admin: bool = False) -> None:
        """`admin`: the page may ask for changes, which `asked` notes."""
        self.asked: list[dict[str, Any]] = []
        self.bans: list[tuple[IPNetwork, int]] = []
        admin_pages = Admin(self._do) if admin else None
        self.status = a_status()
        self.flows: list[dict[str, Any]] = []
        self.stores: list[str] = []
        self.time = 1000.0
        self.watchers: list[Watcher] = []
        self.recent = Recent(lambda: 1.5e9)
        self.log = Log(fd=os.open(os.devnull, os.O_WRONLY))
        asked = Asked(self._status, self._flows, lambda: self.stores, lambda: self.bans)
        token = admin_pages.token if admin_pages else ""
        self.feed = Feed(asked, self.recent, self.log, clock=lambda: self.time, token=token)
        pages, guard = status_pages(self.feed), Guard("v6fwd.example")
        posts = admin_pages.posts if admin_pages else {}
        self.server = WebServer(Endpoint("::1", 0), pages, self.log, guard, posts=posts)

    async def _status(self) -> dict[str, Any]:
        return self.status

    async def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        if request["do"] == "reload":
            return {"error": [HOSTILE]}
        bans = [{"network": each} for each in request.get("networks", ())]
        return {"bans": bans, "ended": 3} if bans else {"result": "draining"}

    async def _flows(self) -> list[dict[str, Any]]:
        return [dict(flow) for flow in self.flows]

    async def pass_by(self, seconds: float) -> None:
        """Let time pass, and refresh then."""
        self.time += seconds
        await self.feed.refresh()

    async def watch(self) -> Watcher:
        """One more who watches."""
        self.watchers.append(watcher := await Watcher.at(self.server.port))
        return watcher

    @property
    def address(self) -> str:
        """Of the page."""
        return f"http://[::1]:{self.server.port}/status"


@contextlib.asynccontextmanager
async def a_view(*, admin: bool = False) -> AsyncIterator[View]:
    """A View that serves, and is refreshed by hand."""
    view = View(admin=admin)
    await view.server.open()
    try:
        yield view
    finally:
        view.server.close()
        view.feed.close()
        for watcher in view.watchers:
            await watcher.close()
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=20)


class Watcher:
    """Reads the events of a page."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.head = ""
        """Of the answer."""

    @classmethod
    async def at(cls, port: int) -> Watcher:
        """Ask for the events, and read the answer's head."""
        reader, writer = await asyncio.open_connection("::1", port, limit=1 << 24)
        writer.write(f"GET {EVENTS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        watcher = cls(reader, writer)
        async with asyncio.timeout(20):
            watcher.head = (await reader.readuntil(b"\r\n\r\n")).decode()
            if watcher.head.startswith("HTTP/1.1 200"):
                assert await reader.readuntil(b"\n\n") == b"retry: 1000\n\n"
        return watcher

    async def event(self, name: str) -> Any:
        """The next event of a kind. Raises IncompleteReadError at the end."""
        async with asyncio.timeout(20):
            while True:
                lines = (await self._reader.readuntil(b"\n\n")).decode().splitlines()
                if lines[0] == f"event: {name}":
                    return json.loads(lines[1].removeprefix("data: "))

    async def close(self) -> None:
        """Go away."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()
