"""The status page in Chromium: it updates, shows hostile names as text, and serves everybody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Browser, a_browser
from tests.support.paths import ROOT
from tests.support.viewed import HOSTILE, View, a_flow, a_forward, a_status, a_view

pytestmark = [pytest.mark.server("chromium"), pytest.mark.timeout(240)]

CONTRAST = """
(() => {
  const light = (colour) => {
    const parts = colour.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const back = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *")) {
    const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!text || !node.getClientRects().length) continue;
    const [one, other] = [light(getComputedStyle(node).color), light(back(node))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) poor.push(`${node.tagName} ${node.textContent.slice(0, 30)}: ${ratio}`);
  }
  return poor;
})()
"""
"""Texts with less contrast than WCAG 2.2, success criterion 1.4.3, wants."""


@pytest.fixture
async def view() -> AsyncIterator[View]:
    async with a_view() as view:
        yield view


@pytest.fixture
async def admin() -> AsyncIterator[View]:
    """A view whose page may ask for changes."""
    async with a_view(admin=True) as view:
        yield view


@contextlib.asynccontextmanager
async def opened(view: View, folder: Path) -> AsyncIterator[Browser]:
    """A browser that shows the page, and has nothing to complain about to the end."""

    async def go_on() -> None:
        while True:
            await view.pass_by(1)
            await asyncio.sleep(0.05)

    ticking = asyncio.create_task(go_on())
    try:
        async with a_browser(folder) as browser:
            await browser.open(view.address)
            await browser.wait_for("document.querySelector('#totals dd')?.textContent.length > 0")
            yield browser
            await browser.js("0")
            assert browser.complaints == []
    finally:
        ticking.cancel()


def busy_status(count: int = 3, **more: Any) -> dict[str, Any]:
    forwards = [a_forward(f"[2001:db8::1]:{8000 + n}", flows=n, bytes_up=n) for n in range(count)]
    held = [{"listen": "[::]:443", "target": "172.17.0.9:443", "why": HOSTILE}]
    published = [{"listen": "[::]:443", "target": "", "container": HOSTILE, "source": HOSTILE}]
    return a_status(*forwards, held=held, published=published, labels=[HOSTILE]) | more


def cell(row: str, column: int) -> str:
    """The text of a cell of the forwards."""
    rows = "[...document.querySelectorAll('#forwards tbody tr')]"
    found = f"{rows}.find((row) => row.children[0].textContent === '{row}')"
    return f"{found}?.children[{column}].textContent"


async def test_it_updates(view: View, tmp_path: Path) -> None:
    view.status = busy_status()
    async with opened(view, tmp_path) as browser:
        row = "[2001:db8::1]:8001"
        assert await browser.js(cell(row, 5)) == "1"
        kept = "window.kept = document.querySelector('#forwards tbody tr')"
        await browser.js(f"{kept}; 0")
        view.status = busy_status()
        view.status["forwards"][1] |= {"flows": 1234, "bytes_down": 10**9}
        await browser.wait_for(f"{cell(row, 5)} === '1,234'")
        assert await browser.js("window.kept.isConnected"), "rows change in place"
        await browser.wait_for("document.querySelector('#charts svg path').getAttribute('d')")
        view.flows = [a_flow("2001:db8::7", 10**6)]
        await browser.wait_for(
            "document.getElementById('net').textContent.includes('2001:db8::/64')"
        )
        await browser.js("document.getElementById('pause').click()")
        view.status = busy_status()
        view.status["forwards"][1] |= {"flows": 7}
        other = await view.watch()
        while (await other.event("status"))["flows"] != 9:
            pass
        assert await browser.js(cell(row, 5)) == "1,234"
        await browser.js("document.getElementById('pause').click()")
        await browser.wait_for(f"{cell(row, 5)} === '7'")


async def test_hostile_names_are_text(view: View, tmp_path: Path) -> None:
    view.status = busy_status()
    view.flows = [a_flow(HOSTILE.replace(":", ""))]
    view.recent.note("warning", HOSTILE, HOSTILE)
    async with opened(view, tmp_path) as browser:
        await browser.wait_for("document.querySelector('#client tbody tr')")
        for place in ("forwards", "trouble", "log", "client"):
            text = await browser.js(f"document.getElementById('{place}').textContent")
            assert "<script>document.title=" in text, place
        assert await browser.js("document.title") == "v6fwd"
        assert await browser.js("document.querySelectorAll('img').length") == 0
        assert await browser.js("document.scripts.length") == 1


async def test_with_the_keyboard(view: View, tmp_path: Path) -> None:
    view.status = busy_status()
    async with opened(view, tmp_path) as browser:
        await browser.press("Tab")
        assert await browser.js("document.activeElement.className") == "skip"
        seen = []
        for _ in range(9):
            await browser.press("Tab")
            seen.append(
                await browser.js(
                    "document.activeElement.textContent.slice(0, 9) || document.activeElement.id"
                )
            )
        assert seen[:2] == ["Pause", "filter"]
        live = "document.querySelectorAll('#forwards thead button')[5]"
        await browser.js(f"{live}.focus()")
        await browser.press("Enter", "\r")
        order = "document.querySelectorAll('#forwards thead th')[5].getAttribute('aria-sort')"
        assert await browser.js(order) == "descending"
        first = "document.querySelector('#forwards tbody th').textContent"
        assert await browser.js(first) == "[2001:db8::1]:8002"
        await browser.press("Enter", "\r")
        assert await browser.js(order) == "ascending"


async def test_what_a_screen_reader_is_told(view: View, tmp_path: Path) -> None:
    view.status = busy_status()
    view.flows = [a_flow("2001:db8::7")]
    async with opened(view, tmp_path) as browser:
        await browser.wait_for("document.querySelector('#client tbody tr')")
        nodes = (await browser.do("Accessibility.getFullAXTree"))["nodes"]
        names = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"]
        ]
        roles = [role for role, _ in names]
        assert roles.count("table") == 3
        assert roles.count("columnheader") == 12 + 2 * 6
        assert roles.count("rowheader") == 4 + 1 + 1
        assert roles.count("status") == 2
        assert ("searchbox", "Filter") in names
        for role, name in names:
            assert name or role not in ("button", "link", "image", "region", "table", "list"), role


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
async def test_in_every_window(view: View, tmp_path: Path, is_dark: bool) -> None:
    view.status = busy_status()
    view.flows = [a_flow("2001:db8:1111:2222:3333:4444:5555:6666")]
    async with opened(view, tmp_path) as browser:
        await browser.wait_for("document.querySelector('#client tbody tr')")
        for width in (360, 1400):
            await browser.resize(width, 800, is_dark=is_dark)
            assert await browser.js("document.documentElement.scrollWidth") <= width
            assert await browser.js(CONTRAST) == []
        back = await browser.js("getComputedStyle(document.body).backgroundColor")
        assert (back != "rgb(255, 255, 255)") == is_dark


async def test_many_do_not_make_it_crawl(view: View, tmp_path: Path) -> None:
    view.status = busy_status(500)
    view.flows = [a_flow(f"2001:db8:{number:x}::1", number) for number in range(10_000)]
    async with opened(view, tmp_path) as browser:
        await browser.wait_for("document.querySelectorAll('#net tbody tr').length === 25")
        assert await browser.js("document.querySelectorAll('#forwards tbody tr').length") == 100
        assert "401" in await browser.js("document.getElementById('hidden').textContent")
        assert "9,975" in await browser.js("document.getElementById('net-more').textContent")
        assert await browser.js("document.querySelectorAll('*').length") < 3000


# ---- changes ---------------------------------------------------------------------------------


def button(table: str, row: int, name: str) -> str:
    """A button in a row of a table."""
    rows = f"document.querySelectorAll('#{table} tbody tr')"
    return f"[...{rows}[{row}].querySelectorAll('button')].find((b) => b.textContent === '{name}')"


async def confirm(browser: Browser, expected: str, answer: str = "yes") -> None:
    """Read what the dialogue says, and press one of its buttons."""
    await browser.wait_for("document.getElementById('confirm').open")
    assert await browser.js("document.getElementById('confirm-what').textContent") == expected
    await browser.js(f"document.getElementById('confirm-{answer}').click()")
    assert not await browser.js("document.getElementById('confirm').open")


async def test_a_client_is_banned_when_that_is_confirmed(admin: View, tmp_path: Path) -> None:
    admin.status, admin.flows = busy_status(), [a_flow("2001:db8::7")]
    what = "Ban 2001:db8::/64 at all forwards, and reset its flows?"
    async with opened(admin, tmp_path) as browser:
        await browser.wait_for("document.querySelector('#client tbody tr')")
        await browser.js(f"{button('net', 0, 'Ban')}.click()")
        await confirm(browser, what, "no")
        await browser.js(f"{button('net', 0, 'Ban')}.click()")
        await browser.js("document.getElementById('confirm-for').value = '600'; 0")
        await confirm(browser, what)
        done = "document.getElementById('done').textContent"
        await browser.wait_for(f"{done} === '2001:db8::/64 is banned, 3 flows reset'")
    assert admin.asked == [{"do": "ban", "networks": ["2001:db8::/64"], "seconds": 600}]


async def test_bans_end_and_forwards_drain(admin: View, tmp_path: Path) -> None:
    admin.status = busy_status()
    admin.bans = [(ip_network("2001:db8:5::/64"), 0), (ip_network("192.0.2.1"), 1)]
    async with opened(admin, tmp_path) as browser:
        await browser.wait_for("document.querySelector('#bans tbody tr')")
        shown = "document.getElementById('bans').textContent"
        assert "192.0.2.1" not in await browser.js(shown), "it is over"
        await browser.js(f"{button('bans', 0, 'Unban')}.click()")
        await confirm(browser, "Let 2001:db8:5::/64 in again?")
        done = "document.getElementById('done').textContent"
        await browser.wait_for(f"{done} === '2001:db8:5::/64 is no longer banned'")
        assert not await browser.js(f"{button('forwards', 1, 'Drain')}.hidden")
        await browser.js(f"{button('forwards', 1, 'Drain')}.click()")
        assert await browser.js("document.getElementById('confirm-time').hidden")
        await browser.js("document.getElementById('confirm-yes').click()")
        await browser.wait_for(f"{done} === 'draining'")
    assert [each["do"] for each in admin.asked] == ["unban", "drain"]
    assert admin.asked[1]["listen"].startswith("[2001:db8::1]:800")


async def test_nothing_can_be_changed_unless_that_is_allowed(view: View, tmp_path: Path) -> None:
    view.status, view.flows = busy_status(), [a_flow("2001:db8::7")]
    view.bans = [(ip_network("2001:db8:5::/64"), 0)]
    async with opened(view, tmp_path) as browser:
        await browser.wait_for("document.querySelector('#client tbody tr')")
        await browser.wait_for("document.querySelector('#bans tbody tr')")
        visible = (
            "[...document.querySelectorAll('.action')].filter((n) => n.getClientRects().length)"
        )
        assert await browser.js(f"{visible}.length") == 0
        status = "fetch('/status/do', { method: 'POST' }).then((r) => { window.told = r.status; })"
        await browser.js(f"{status}; 0")
        await browser.wait_for("window.told === 405")
        assert len(browser.complaints) == 1, "the console has the refusal"
        browser.complaints.clear()


# ---- axe -------------------------------------------------------------------------------------

AXE = ROOT / ".corpora" / "axe.min.js"
SERIOUS = """
window.axed = undefined;
axe.run(document, { resultTypes: ["violations"] }).then((found) => {
  window.axed = found.violations.filter((each) => ["serious", "critical"].includes(each.impact))
    .map((each) => `${each.id}: ${each.nodes.map((node) => node.html).join(" ")}`);
});
0
"""


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
async def test_axe_finds_nothing_serious(admin: View, tmp_path: Path, is_dark: bool) -> None:
    """Deque's axe-core, fetched by scripts/fetch-corpora; with and without the dialogue."""
    if not AXE.exists():
        pytest.skip("not fetched; `make test` does it")
    admin.status, admin.flows = busy_status(), [a_flow("2001:db8::7")]
    admin.bans = [(ip_network("2001:db8:5::/64"), 0)]
    async with opened(admin, tmp_path) as browser:
        await browser.resize(1400, 800, is_dark=is_dark)
        await browser.wait_for("document.querySelector('#client tbody tr')")
        await browser.js(f"{AXE.read_text()}; 0")
        for step in ("0", "document.getElementById('reload').click(); 0"):
            await browser.js(step)
            await browser.js(SERIOUS)
            await browser.wait_for("window.axed")
            assert await browser.js("window.axed") == []
