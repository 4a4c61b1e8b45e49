"""Makes answers to requests that are refused, or that the target did not answer."""

from __future__ import annotations

from http import HTTPStatus

# RFC 9110, 15.5.6: a 405 must list the allowed methods; only CONNECT is refused.
_ALLOW = "Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n"


def refusal(status: int, why: str) -> bytes:
    """A complete HTTP/1.1 response with one line of text as body; it closes the connection."""
    reason = f"{status} {HTTPStatus(status).phrase}"
    body = f"{reason}: {why}\n"
    return (
        f"HTTP/1.1 {reason}\r\n"
        f"{_ALLOW if status == 405 else ''}"
        "Content-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n"
        "\r\n"
        f"{body}"
    ).encode("ascii", "replace")
