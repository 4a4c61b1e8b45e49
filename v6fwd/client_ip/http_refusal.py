"""The answer to a request that is not let through, or that the target did not answer."""

from __future__ import annotations

import http


def refusal(status: int, why: str) -> bytes:
    """A whole HTTP/1.1 response with one line of text as its body; the connection ends with it."""
    reason = http.HTTPStatus(status).phrase
    body = f"{status} {reason}: {why}\n".encode("ascii", "replace")
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body
