"""The paths of the status page. Its files are read once, before root is given up."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from v6fwd.daemon.view.feed import Feed
from v6fwd.daemon.web import Page, Pages

STATIC = Path(__file__).with_name("static")
FILES = {
    "/status": ("status.html", "text/html; charset=utf-8"),
    "/status.css": ("status.css", "text/css; charset=utf-8"),
    "/status.js": ("status.js", "text/javascript; charset=utf-8"),
}
EVENTS = "/status/events"

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FIELDS = (
    f"Content-Security-Policy: {_POLICY}",
    "X-Content-Type-Options: nosniff",
    "Referrer-Policy: no-referrer",
    "Cross-Origin-Opener-Policy: same-origin",
    "Cross-Origin-Resource-Policy: same-origin",
    "Cache-Control: no-store",
)


def status_pages(feed: Feed) -> Pages:
    """Return the page's files, and the events that it follows. Raises OSError."""

    async def events() -> Page:
        if not feed.has_room:
            text = b"too many watch already\n"
            return Page(text, status=HTTPStatus.SERVICE_UNAVAILABLE, fields=FIELDS)
        beginning = b"retry: 1000\n\n"
        return Page(beginning, "text/event-stream", fields=FIELDS, follow=feed.follow)

    async def first() -> Page:
        return Page(
            b"", status=HTTPStatus.TEMPORARY_REDIRECT, fields=("Location: /status", *FIELDS)
        )

    pages: Pages = {path: _file(name, kind).get for path, (name, kind) in FILES.items()}
    return {"/": first, **pages, EVENTS: events}


class _File:
    """A page that never changes."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def get(self) -> Page:
        return self._page


def _file(name: str, kind: str) -> _File:
    return _File(Page((STATIC / name).read_bytes(), kind, fields=FIELDS))
