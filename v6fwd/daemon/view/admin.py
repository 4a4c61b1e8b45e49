"""What the status page may change, with `admin = true`: bans, drain, reload.

A page of another site must not do it in the name of whoever watches (CSRF). So a request is a POST
that only a script of our own page can send: Origin is ours (RFC 6454), Sec-Fetch-Site says
same-origin where the browser sends it, JSON and the field X-CSRF-Token would need a preflight that
nobody answers, and the token is in the events of the page, which no other origin can read.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from v6fwd.daemon.view.pages import FIELDS
from v6fwd.daemon.web import Page, Posts, fields_of

PATH = "/status/do"
MAY = ("ban", "unban", "drain", "reload")
"""What may be asked for. To drain takes the name of a forward: the daemon itself is not stopped."""
JSON = "application/json"

Request = dict[str, Any]
Do = Callable[[Request], Awaitable[Request]]
"""Does what a request says, as at the control socket; the answer has `error` if it failed."""


class Admin:
    """Answers the page's requests for changes."""

    def __init__(self, do: Do) -> None:
        self._do = do
        self.token = secrets.token_urlsafe(32)
        """Of this process: a page that a successor has not shown may ask for nothing."""

    @property
    def posts(self) -> Posts:
        """For the web server."""
        return {PATH: self._post}

    async def _post(self, head: bytes, body: bytes) -> Page:
        status = self._refusal(head)
        request = _read(body) if status is None else None
        if status is not None or request is None:
            status = status or HTTPStatus.BAD_REQUEST
            return _page({"error": [status.phrase]}, status)
        answer = await self._do(request)
        failed = "error" in answer
        return _page(answer, HTTPStatus.UNPROCESSABLE_ENTITY if failed else HTTPStatus.OK)

    def _refusal(self, head: bytes) -> HTTPStatus | None:
        fields = fields_of(head)
        (host,) = fields["host"]  # the guard has seen it
        origin = fields.get("origin", [])
        if origin not in ([f"http://{host}"], [f"https://{host}"]):
            return HTTPStatus.FORBIDDEN
        if fields.get("sec-fetch-site", ["same-origin"]) != ["same-origin"]:
            return HTTPStatus.FORBIDDEN
        if fields.get("content-type", []) != [JSON]:
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        sent = fields.get("x-csrf-token", [""])
        is_ours = hmac.compare_digest(sent[0].encode("latin-1"), self.token.encode())
        return None if is_ours and len(sent) == 1 else HTTPStatus.FORBIDDEN


def _read(body: bytes) -> Request | None:
    """A request for something that may be asked for; None: it is none."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(request, dict) or request.get("do") not in MAY:
        return None
    if request["do"] == "drain" and not isinstance(request.get("listen"), str):
        return None
    return request


def _page(answer: Request, status: HTTPStatus) -> Page:
    return Page(json.dumps(answer).encode(), JSON, status, FIELDS)
