"""Which requests may have the status page.

DNS rebinding: a page from elsewhere has its own name lead to our address, and then reads us as its
own origin. The browser sends that name in Host, so only names that are ours are answered. An
address cannot be rebound. Sec-Fetch-Site (Fetch Metadata) says that a request came from a page of
another site: such a one may lead people to the page, but not take the places of those who watch.
"""

from __future__ import annotations

from http import HTTPStatus

from v6fwd.model import is_ip

OPEN = ("/metrics", "/healthz")
"""Paths for programs, which may use any name."""


class Guard:
    """Refuses requests for all paths but those of OPEN."""

    def __init__(self, name: str = "") -> None:
        """`name`: a host name that leads here, beside localhost; "": none."""
        self._names = {"localhost", name.lower().rstrip(".")} - {""}

    def __call__(self, path: str, head: bytes) -> HTTPStatus | None:
        """The status of a refusal; None: the request is answered."""
        if path in OPEN:
            return None
        fields = _fields(head)
        hosts = fields.get("host", [])
        if len(hosts) != 1:
            return HTTPStatus.BAD_REQUEST  # RFC 9112, section 3.2
        if not self._is_ours(hosts[0]):
            return HTTPStatus.MISDIRECTED_REQUEST
        sites = fields.get("sec-fetch-site", [])
        modes = fields.get("sec-fetch-mode", [])
        if {"cross-site", "same-site"}.isdisjoint(sites) or modes == ["navigate"]:
            return None
        return HTTPStatus.FORBIDDEN

    def _is_ours(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        if not colon or not port.isdecimal():
            name = host
        if name.startswith("[") and name.endswith("]"):
            return ":" in name and is_ip(name[1:-1])
        return name.lower().rstrip(".") in self._names or (":" not in name and is_ip(name))


def _fields(head: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        found.setdefault(name.lower(), []).append(value.strip(" \t"))
    return found
