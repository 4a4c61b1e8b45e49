"""The events of the status page, and what those who watch can do to it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.relaying import until
from tests.support.viewed import HOSTILE, View, a_flow, a_forward, a_status, a_view
from v6fwd.daemon.view import feed
from v6fwd.daemon.view.feed import CLIENTS, ROWS, WATCHERS
from v6fwd.daemon.view.pages import FILES, STATIC
from v6fwd.relay.transparent.pseudo_store import PseudoStore


@pytest.fixture
async def view() -> AsyncIterator[View]:
    async with a_view() as view:
        yield view


async def fetched(view: View, request: str) -> tuple[str, bytes]:
    """Head and body of an answer."""
    reader, writer = await asyncio.open_connection("::1", view.server.port)
    writer.write(request.encode("latin-1"))
    async with asyncio.timeout(20):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return head.decode(), body


async def gone(view: View, left: int) -> None:
    """Wait until so many watch. That a client has gone shows when something is written."""
    async with asyncio.timeout(20):
        while len(view.feed._watchers) > left:
            await view.pass_by(1)
            await asyncio.sleep(0.001)


async def test_rates_come_as_they_change(view: View) -> None:
    watcher = await view.watch()
    view.status = a_status(a_forward(flows=1))
    await view.pass_by(1)
    assert (await watcher.event("status"))["rates"]["flows"] == 0
    view.status = a_status(a_forward(flows=9, bytes_up=400))
    await view.pass_by(2)
    status = await watcher.event("status")
    assert (status["rates"]["flows"], status["rates"]["up"], status["live"]) == (4, 200, 9)
    assert status["rows"][0]["rates"]["flows"] == 4


async def test_a_connection_that_is_closed_but_not_forgotten_yet(view: View) -> None:
    """Nothing is written to it, and what there is to see is gathered."""
    await view.watch()
    [writer] = view.feed._watchers
    writer.transport.abort()
    view.status = a_status(a_forward(flows=9))
    await view.pass_by(1)
    assert not view.feed._watchers


async def test_history_comes_when_there_is_more(view: View) -> None:
    await view.pass_by(5)  # while nobody watches
    watcher = await view.watch()
    await view.pass_by(1)
    assert len((await watcher.event("history"))["flows"]) == 1
    await view.pass_by(1)
    await view.pass_by(3)
    assert len((await watcher.event("history"))["flows"]) == 2


async def test_lines_of_the_log(view: View) -> None:
    watcher = await view.watch()
    await view.pass_by(1)
    assert await watcher.event("log") == []
    view.log.heard = view.recent.note
    view.log.warning("worker-died", "a worker died\x1b")
    await view.pass_by(1)
    (line,) = await watcher.event("log")
    assert (line["level"], line["event"]) == ("warning", "worker-died")
    assert (line["at"], line["text"]) == (1.5e9, r"a worker died\x1b")


async def test_clients_with_their_pseudo_addresses(view: View, tmp_path: Path) -> None:
    store = str(tmp_path / "pseudo.sqlite")
    pseudo = PseudoStore(store)
    address = pseudo.address_of(bytes.fromhex("20010db8" + 11 * "00" + "01"), 64)
    pseudo.close()
    view.stores = [store]
    view.flows = [a_flow("2001:db8::1", 9), a_flow("192.0.2.1", 1), a_flow("")]
    watcher = await view.watch()
    await view.pass_by(1)
    clients = await watcher.event("clients")
    shown = [(row["client"], row["pseudo"]) for row in clients["net"]["rows"]]
    text = ".".join(map(str, address))
    assert shown == [("2001:db8::/64", text), ("192.0.2.1", ""), ("", "")]
    assert clients["client"]["rows"][0]["pseudo"] == text


async def test_a_store_that_is_not_there(view: View, tmp_path: Path) -> None:
    view.stores = [str(tmp_path / "none")]
    view.flows = [a_flow("2001:db8::1")]
    watcher = await view.watch()
    await view.pass_by(1)
    assert (await watcher.event("clients"))["net"]["rows"][0]["pseudo"] == ""


async def test_events_are_bounded(view: View) -> None:
    view.status = a_status(*(a_forward(f"[::]:{port}") for port in range(500)))
    view.flows = [a_flow(f"2001:db8:{number:x}::1", number) for number in range(10_000)]
    watcher = await view.watch()
    await view.pass_by(1)
    status = await watcher.event("status")
    assert (len(status["rows"]), status["hidden"]) == (ROWS, 500 - ROWS)
    net = (await watcher.event("clients"))["net"]
    assert (len(net["rows"]), net["number"]) == (CLIENTS, 10_000)
    assert sum(map(len, view.feed.latest.values())) < 64 << 10


async def test_who_begins_later_sees_all_at_once(view: View) -> None:
    first = await view.watch()
    await view.pass_by(1)
    await first.event("clients")
    second = await view.watch()
    for name in ("status", "history", "log", "clients"):
        await second.event(name)


async def test_nobody_is_told_of_the_past(view: View) -> None:
    watcher = await view.watch()
    await view.pass_by(1)
    await watcher.event("clients")
    await watcher.close()
    await gone(view, 0)
    assert view.feed.latest == {}


async def test_places_are_limited_and_given_back(view: View) -> None:
    watchers = [await view.watch() for _ in range(WATCHERS)]
    late = await view.watch()
    assert late.head.startswith("HTTP/1.1 503 ")
    page, _ = await fetched(view, "GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert page.startswith("HTTP/1.1 200 ")
    await watchers.pop().close()
    await gone(view, WATCHERS - 1)
    again = await view.watch()
    assert again.head.startswith("HTTP/1.1 200 ")


async def test_who_does_not_read_is_dropped(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go on."""
    monkeypatch.setattr(feed, "BACKLOG", 10_000)
    view.status = a_status(*(a_forward(f"[::]:{port}") for port in range(ROWS)))
    slow = socket.socket(socket.AF_INET6)
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(slow, ("::1", view.server.port))
    await loop.sock_sendall(slow, b"GET /status/events HTTP/1.1\r\nHost: [::1]\r\n\r\n")
    quick = await view.watch()
    await until(lambda: len(view.feed._watchers) == 2)
    rounds = 0
    while len(view.feed._watchers) == 2:
        rounds += 1
        assert rounds < 1000
        await view.pass_by(1)
        await quick.event("status")
    await view.pass_by(1)
    await quick.event("status")
    assert len(view.feed._watchers) == 1
    slow.close()


async def test_what_a_watcher_sends_is_not_heard(view: View) -> None:
    watcher = await view.watch()
    watcher.writer.write(b"GET / HTTP/1.1\r\n\r\n" + b"\0\xff" * 4096)
    await view.pass_by(1)
    await watcher.event("status")


async def test_whoever_watches_is_let_go_at_the_end(view: View) -> None:
    watcher = await view.watch()
    view.feed.close()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await watcher.event("never")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421"),
        ("GET /status/events HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421"),
        ("GET /status/events HTTP/1.1\r\n\r\n", "400"),
        ("GET /status/events HTTP/1.1\r\nHost: [::1]\r\nSec-Fetch-Site: cross-site\r\n\r\n", "403"),
        ("POST /status/events HTTP/1.1\r\nHost: localhost\r\n\r\n", "405"),
        ("GET /status/../status.js HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"),
        ("HEAD /status/events HTTP/1.1\r\nHost: localhost\r\n\r\n", "200"),
    ],
)
async def test_what_is_not_a_watcher(view: View, request_: str, status: str) -> None:
    head, _ = await fetched(view, request_)
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert view.feed.has_room
    assert not view.feed._watchers


async def test_the_files_and_their_policy(view: View) -> None:
    size = 0
    for path, (name, kind) in FILES.items():
        head, body = await fetched(view, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert body == (STATIC / name).read_bytes()
        assert f"Content-Type: {kind}\r\n" in head
        assert "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src" in head
        assert "unsafe" not in head
        size += len(body)
    assert size < 100_000


async def test_the_first_page_leads_there(view: View) -> None:
    head, _ = await fetched(view, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert head.startswith("HTTP/1.1 307 ")
    assert "\r\nLocation: /status\r\n" in head


def test_nothing_is_put_in_as_html() -> None:
    script = (STATIC / "status.js").read_text()
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "write(", "eval(", "DOMParser"):
        assert word not in script
    for path in STATIC.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, f"{path.name} names another place"
    page = (STATIC / "status.html").read_text()
    assert " style=" not in page
    assert " onclick=" not in page


async def test_a_hostile_name_is_data(view: View) -> None:
    held = [{"listen": "[::]:1", "target": "", "why": HOSTILE + "\n\nevent: status\ndata: {}"}]
    view.status = a_status(held=held)
    watcher = await view.watch()
    await view.pass_by(1)
    assert (await watcher.event("status"))["rows"][0]["note"] == held[0]["why"]
    await watcher.event("history")
