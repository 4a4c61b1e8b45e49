"""The web server with the status page, made where `status-page` asks for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from v6fwd.config import Metrics
from v6fwd.daemon.supervisor import Supervisor
from v6fwd.daemon.view.feed import Asked, Feed
from v6fwd.daemon.view.guard import Guard
from v6fwd.daemon.view.pages import status_pages
from v6fwd.daemon.view.recent import Recent
from v6fwd.daemon.web import Pages, WebServer
from v6fwd.log import Log
from v6fwd.model import ClientIP


def status_server(
    metrics: Metrics,
    pages: Pages,
    status: Callable[[], Awaitable[Mapping[str, Any]]],
    supervisor: Supervisor,
    log: Log,
) -> WebServer:
    """Return a server of `pages` and the status page. Raises OSError."""
    assert metrics.listen is not None
    recent = Recent()
    log.heard = recent.note
    feed = Feed(Asked(status, supervisor.flows, lambda: _stores(supervisor)), recent, log)
    shown = {**pages, **status_pages(feed)}
    return WebServer(metrics.listen, shown, log, Guard(metrics.status_host), feed)


def _stores(supervisor: Supervisor) -> set[str]:
    """The stores of pseudo IPv4 addresses in use."""
    return {
        each.transparent.pseudo_store
        for each in supervisor.forwards.values()
        if each.client_ip is ClientIP.TRANSPARENT
    }
