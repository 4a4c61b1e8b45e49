"""What the page may change, and that nobody else's page may."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import pytest

from v6fwd.daemon.view.admin import JSON, MAY, PATH, Admin

BAN = {"do": "ban", "networks": ["2001:db8::5"], "seconds": 60}


class Daemon:
    """Does what it is asked."""

    def __init__(self, **answer: Any) -> None:
        self.asked: list[dict[str, Any]] = []
        self._answer = answer or {"result": "done"}
        self.admin = Admin(self._do)

    async def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        return self._answer

    async def post(self, body: Any = BAN, **changes: Any) -> tuple[HTTPStatus, Any]:
        """Send a request as our own page does, but for some changes; None leaves a field out."""
        fields = {
            "Host": "[::1]:9464",
            "Origin": "http://[::1]:9464",
            "Sec-Fetch-Site": "same-origin",
            "Content-Type": JSON,
            "X-CSRF-Token": self.admin.token,
        }
        fields |= {name.replace("_", "-"): value for name, value in changes.items()}
        lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
        head = "\r\n".join(["POST /status/do HTTP/1.1", *lines, "", ""]).encode("latin-1")
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        page = await self.admin.posts[PATH](head, data)
        assert "Content-Security-Policy" in "".join(page.fields)
        return page.status, json.loads(page.body)


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


async def test_our_own_page(daemon: Daemon) -> None:
    assert await daemon.post() == (HTTPStatus.OK, {"result": "done"})
    assert daemon.asked == [BAN]


@pytest.mark.parametrize(
    "changes",
    [
        {"Origin": "https://[::1]:9464"},  # behind a server with TLS
        {"Sec_Fetch_Site": None},  # an older browser
        {"Host": "v6fwd.example", "Origin": "https://v6fwd.example"},
    ],
)
async def test_other_ways_to_our_own_page(daemon: Daemon, changes: dict[str, Any]) -> None:
    assert (await daemon.post(**changes))[0] is HTTPStatus.OK


@pytest.mark.parametrize(
    "changes",
    [
        {"Origin": None},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://[::1]:8000"},
        {"Origin": "http://[::1]"},
        {"Origin": "http://[::1]:9464\r\nOrigin: http://[::1]:9464"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
        {"X_CSRF_Token": None},
        {"X_CSRF_Token": ""},
        {"X_CSRF_Token": "x" * 43},
        {"X_CSRF_Token": "\xff"},
        {"Content_Type": None},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
    ],
)
async def test_everybody_elses(daemon: Daemon, changes: dict[str, Any]) -> None:
    status, _ = await daemon.post(**changes)
    assert status in (HTTPStatus.FORBIDDEN, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    assert daemon.asked == []


async def test_a_token_is_of_one_process(daemon: Daemon) -> None:
    assert (await daemon.post(X_CSRF_Token=Daemon().admin.token))[0] is HTTPStatus.FORBIDDEN


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 8000,
        b"\xff",
        [],
        {},
        {"do": "status"},
        {"do": "takeover"},
        {"do": "kill", "all": True},
        {"do": ["ban"]},
        {"do": "drain"},
        {"do": "drain", "listen": None},
    ],
)
async def test_what_may_not_be_asked_for(daemon: Daemon, body: Any) -> None:
    assert await daemon.post(body) == (HTTPStatus.BAD_REQUEST, {"error": ["Bad Request"]})
    assert daemon.asked == []


async def test_a_daemon_that_refuses() -> None:
    daemon = Daemon(error=["'::/0' is too wide to ban"], done=True)
    status, told = await daemon.post()
    assert status is HTTPStatus.UNPROCESSABLE_ENTITY
    assert told["error"] == ["'::/0' is too wide to ban"]


def test_the_daemon_itself_is_never_stopped() -> None:
    assert set(MAY) == {"ban", "unban", "drain", "reload"}
