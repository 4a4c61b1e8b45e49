"""Which requests may have the status page.

DNS rebinding: a page from elsewhere has its own name lead to our address, and then reads us as its
own origin. The browser sends that name in Host, so only names that are ours are answered. An
address cannot be rebound. Sec-Fetch-Site (Fetch Metadata) says that a request came from a page of
another site: such a one may lead people to the page, but not take the places of those who watch.
A password is sent with each request, as HTTP's Basic scheme has it: browsers do that by themselves.
"""

from __future__ import annotations

import base64
import hmac
import os
import stat
from hashlib import sha256
from http import HTTPStatus

from v6fwd.daemon.web import fields_of
from v6fwd.errors import RelayError, reason
from v6fwd.model import is_ip

OPEN = ("/metrics", "/healthz")
"""Paths for programs, which may use any name."""

_SHORTEST, _LONGEST = 16, 200
_OTHERS = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP
"""A group may read it: systemd gives credentials so."""


class Guard:
    """Refuses requests for all paths but those of OPEN."""

    def __init__(self, name: str = "", password: str = "") -> None:
        """`name`: a host name that leads here, beside localhost; "": none.

        `password`: what whoever asks has to send, with any user name; "": nothing.
        """
        self._password = sha256(password.encode()).digest() if password else b""
        """Its digest: workers inherit our memory, and need not know it."""
        self._names = {"localhost", name.lower().rstrip(".")} - {""}

    def __call__(self, path: str, head: bytes) -> HTTPStatus | None:
        """The status of a refusal; None: the request is answered."""
        if path in OPEN:
            return None
        fields = fields_of(head)
        hosts = fields.get("host", [])
        if len(hosts) != 1:
            return HTTPStatus.BAD_REQUEST  # RFC 9112, section 3.2
        if not self._is_ours(hosts[0]):
            return HTTPStatus.MISDIRECTED_REQUEST
        if self._password and not self._has_password(fields.get("authorization", [])):
            return HTTPStatus.UNAUTHORIZED
        sites = fields.get("sec-fetch-site", [])
        modes = fields.get("sec-fetch-mode", [])
        if {"cross-site", "same-site"}.isdisjoint(sites) or modes == ["navigate"]:
            return None
        return HTTPStatus.FORBIDDEN

    def _has_password(self, sent: list[str]) -> bool:
        """RFC 7617, section 2: `Basic`, and USER:PASSWORD in base64."""
        scheme, _, text = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
        try:
            pair = base64.b64decode(text.strip(), validate=True)
        except ValueError:
            return False
        sent_digest = sha256(pair.partition(b":")[2]).digest()
        is_right = hmac.compare_digest(sent_digest, self._password)
        return is_right and scheme.lower() == "basic"

    def _is_ours(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        if not colon or not port.isdecimal():
            name = host
        if name.startswith("[") and name.endswith("]"):
            return ":" in name and is_ip(name[1:-1])
        return name.lower().rstrip(".") in self._names or (":" not in name and is_ip(name))


def read_password(path: str) -> str:
    """Read a password that nobody else may read. Raises RelayError."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(_LONGEST + 1).decode("utf-8").strip()
    except OSError as error:
        raise RelayError(f"cannot read token-file {path}: {reason(error)}") from error
    except UnicodeDecodeError:
        raise RelayError(f"cannot use token-file {path}: it is not UTF-8") from None
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & _OTHERS:
        raise RelayError(f"cannot use token-file {path}: others may read or write it; chmod 600")
    if not _SHORTEST <= len(text) <= _LONGEST or not text.isprintable():
        raise RelayError(
            f"cannot use token-file {path}: it needs one line of {_SHORTEST} to {_LONGEST}"
            " characters, such as `openssl rand -hex 24` prints"
        )
    return text
