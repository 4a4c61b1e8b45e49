"""The web server with the status page, made where `status-page` asks for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from v6fwd.config import Metrics
from v6fwd.daemon.peer import may_rule
from v6fwd.daemon.supervisor import Supervisor
from v6fwd.daemon.view.admin import Admin, Do
from v6fwd.daemon.view.feed import Asked, Feed
from v6fwd.daemon.view.guard import Guard, read_password
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
    do: Do,
) -> WebServer:
    """Return a server of `pages` and the status page. Raises OSError, RelayError.

    `do` does what the page asks for, where it may.
    """
    assert metrics.listen is not None
    password = read_password(metrics.token_file) if metrics.token_file else ""
    admin = Admin(do) if metrics.admin else None
    recent = Recent()
    log.heard = recent.note
    asked = Asked(status, supervisor.flows, lambda: _stores(supervisor), lambda: supervisor.bans)
    feed = Feed(asked, recent, log, token=admin.token if admin else "")
    shown = {**pages, **status_pages(feed)}
    guard, posts = Guard(metrics.status_host, password), admin.posts if admin else {}
    trusts = lambda sock: may_rule(sock, supervisor.pool.pids)  # noqa: E731
    return WebServer(metrics.listen, shown, log, guard, feed, posts, trusts)


def _stores(supervisor: Supervisor) -> set[str]:
    """The stores of pseudo IPv4 addresses in use."""
    return {
        each.transparent.pseudo_store
        for each in supervisor.forwards.values()
        if each.client_ip is ClientIP.TRANSPARENT
    }
