"""For tests of a page in a real browser: Chromium without a window, over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.support.relaying import until

PATIENCE = 30.0
"""Seconds: a browser starts slowly on a machine that is busy."""
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--remote-debugging-port=0"),
)


class Browser:
    """A tab. `complaints`: what its console would show in red, a broken policy too."""

    def __init__(self, socket: ClientConnection) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._number = 0

    async def do(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command; its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        async with asyncio.timeout(PATIENCE):
            await self._socket.send(json.dumps(message))
            while True:
                answer = json.loads(await self._socket.recv())
                if answer.get("id") == self._number:
                    assert "error" not in answer, answer
                    return dict(answer["result"])
                self._hear(answer)

    def _hear(self, event: dict[str, Any]) -> None:
        match event["method"]:
            case "Runtime.exceptionThrown":
                self.complaints.append(str(event["params"]["exceptionDetails"]))
            case "Log.entryAdded" if event["params"]["entry"]["level"] == "error":
                entry = event["params"]["entry"]
                if not entry.get("url", "").endswith("/favicon.ico"):
                    self.complaints.append(entry["text"])

    async def open(self, address: str) -> None:
        """Load a page."""
        for domain in ("Page", "Runtime", "Log"):
            await self.do(f"{domain}.enable")
        await self.do("Page.navigate", url=address)

    async def js(self, expression: str) -> Any:
        """The value of an expression, as JSON has it."""
        result = await self.do("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def wait_for(self, expression: str) -> None:
        """Wait until an expression is true."""
        async with asyncio.timeout(PATIENCE):
            while not await self.js(f"Boolean({expression})"):  # noqa: ASYNC110 - the page has no event for us
                await asyncio.sleep(0.02)

    async def resize(self, width: int, height: int, *, is_dark: bool = False) -> None:
        """Have the tab look as in such a window."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.do("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        await self.do("Emulation.setEmulatedMedia", features=[scheme])

    async def press(self, key: str, text: str = "") -> None:
        """Press a key and let it go."""
        down = {"type": "keyDown", "key": key, "text": text}
        codes = {"Tab": 9, "Enter": 13}
        if key in codes:
            down["windowsVirtualKeyCode"] = codes[key]  # type: ignore[assignment]
        await self.do("Input.dispatchKeyEvent", **down)
        await self.do("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def screenshot(self) -> bytes:
        """The window as a PNG."""
        result = await self.do("Page.captureScreenshot", format="png")
        return base64.b64decode(result["data"])


@contextlib.asynccontextmanager
async def a_browser(folder: Path) -> AsyncIterator[Browser]:
    """A browser with an empty profile in a folder; it ends with the context."""
    profile = folder / "profile"
    process = _start(profile)
    try:
        await until(lambda: _port(profile), PATIENCE)
        async with connect(await _tab(_port(profile)), max_size=None) as socket:
            yield (browser := Browser(socket))
            await browser.do("Browser.close")
            await until(lambda: process.poll() is not None, PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _start(profile: Path) -> subprocess.Popen[bytes]:
    words = ["chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(words, stdout=quiet, stderr=quiet, start_new_session=True)


def _port(profile: Path) -> str:
    """Of its DevTools; "" while it starts."""
    file = profile / "DevToolsActivePort"
    text = file.read_text() if file.exists() else ""
    return text.split("\n")[0] if "\n" in text else ""


async def _tab(port: str) -> str:
    """Where the first tab listens."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = [each for each in await _tabs(port) if each["type"] == "page"]
            if found:
                return str(found[0]["webSocketDebuggerUrl"])
            await asyncio.sleep(0.02)


async def _tabs(port: str) -> list[dict[str, Any]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    writer.write(f"GET /json/list HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    tabs: list[dict[str, Any]] = json.loads(await reader.readexactly(length))
    writer.close()
    return tabs
