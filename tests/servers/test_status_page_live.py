"""The status page of a real daemon in Chromium: under load, over a takeover, with a password."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Browser, a_browser
from tests.support.daemon import ServeProcess
from tests.support.load import Load
from tests.support.process import PATIENCE, eventually, free_port

pytestmark = [pytest.mark.server("chromium"), pytest.mark.timeout(240)]

PASSWORD = "0123456789abcdef0123456789abcdef"
COLUMNS = {"live": 5, "flows": 9, "errors": 10}
"""Of the table of forwards, with the names of the status."""


@contextlib.asynccontextmanager
async def opened(port: int, folder: Path) -> AsyncIterator[Browser]:
    """A browser at the page of a daemon."""
    async with a_browser(folder) as browser:
        await browser.open(f"http://[::1]:{port}/status")
        await browser.wait_for("document.querySelector('#forwards tbody tr')")
        yield browser
        await browser.js("0")


def number(column: str) -> str:
    """A whole number of the only forward, as the page shows it."""
    cell = f"document.querySelector('#forwards tbody tr').children[{COLUMNS[column]}]"
    return f"Number({cell}.textContent.replaceAll(',', ''))"


def told(daemon: ServeProcess) -> dict[str, Any]:
    """What `v6fwd status --json` says of the only forward."""
    (forward,) = daemon.status()["forwards"]
    return dict(forward)


def live(daemon: ServeProcess) -> int:
    """How many flows live, as status says."""
    forward = told(daemon)
    return int(forward["flows"]) - int(forward["ended"])


def serve(daemon: ServeProcess, load: Load, more: str = "") -> tuple[int, int]:
    """Run a daemon in front of the load's target; gives the ports of forward and page."""
    listen, page = free_port(), free_port("::1")
    metrics = f'[metrics]\nlisten = "[::1]:{page}"\nstatus-page = true\n{more}'
    daemon.configure((f"[::]:{listen}", f"127.0.0.1:{load.target_port}"), more=metrics)
    daemon.run()
    return listen, page


async def test_its_numbers_are_those_of_status_under_load(
    daemon: ServeProcess, load: Load, tmp_path: Path
) -> None:
    """While flows come and go a number lies between those before and after it; then it is equal."""
    listen, page = serve(daemon, load)
    load.begin(listen)
    await asyncio.to_thread(load.some_more)
    async with opened(page, tmp_path) as browser:
        for _ in range(3):
            before = told(daemon)["flows"]
            await browser.wait_for(f"{number('flows')} >= {before}")
            shown = await browser.js(number("flows"))
            assert before <= shown <= told(daemon)["flows"]
        load.begin(0)
        with contextlib.ExitStack() as held:
            for _ in range(7):
                address = ("::1", listen)
                held.enter_context(socket.create_connection(address, PATIENCE))
            await asyncio.to_thread(eventually, lambda: live(daemon) == 7, "these alone live")
            last = told(daemon)["flows"]
            await browser.wait_for(f"{number('flows')} === {last} && {number('live')} === 7")
            assert (told(daemon)["flows"], live(daemon)) == (last, 7)
            assert await browser.js(number("errors")) == 0
        assert browser.complaints == []


async def test_it_goes_on_with_a_successor(
    daemon: ServeProcess, successor: ServeProcess, load: Load, tmp_path: Path
) -> None:
    _, page = serve(daemon, load)
    async with opened(page, tmp_path) as browser:
        shown = "document.getElementById('daemon').textContent"
        assert f"process {daemon.pid}," in await browser.js(shown)
        successor.run()
        await browser.wait_for(f"{shown}.includes('process {successor.pid},')")
        await browser.wait_for("document.getElementById('state').textContent === 'live'")


async def test_it_bans_with_a_password(
    daemon: ServeProcess, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    token = tmp_path / "token"
    token.write_text(PASSWORD)
    token.chmod(0o600)
    _, page = serve(daemon, load, f'token-file = "{token}"\nadmin = true\n')
    async with a_browser(tmp_path) as browser:
        await browser.open(f"http://[::1]:{page}/status")
        await browser.wait_for("location.protocol === 'chrome-error:'")  # it asks, for nobody
        await browser.open(f"http://me:{PASSWORD}@[::1]:{page}/status")
        await browser.wait_for("document.body?.classList.contains('admin')")
        await browser.js("document.getElementById('ban-who').value = '2001:db8:7::/64'; 0")
        await browser.js("document.getElementById('ban').click()")
        await browser.wait_for("document.getElementById('confirm').open")
        await browser.js("document.getElementById('confirm-yes').click()")
        await browser.wait_for("document.querySelector('#bans tbody tr')")
    listed = daemon.command_line("bans", "--json").output
    assert '"network": "2001:db8:7::/64"' in listed
